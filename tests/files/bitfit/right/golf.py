def apply_bitfit(model):return[p for n,p in model.named_parameters()if p.requires_grad_(n.split(".")[-1]=="bias").requires_grad]
