import torch as t;from torch import nn;n=t.no_grad()
class LoRALinear(nn.Module):
    merged=0
    def __init__(s,base,rank=8,alpha=16.,dropout=0.):
        super().__init__()
        if not isinstance(base,nn.Linear):raise TypeError('base')
        if rank<1:raise ValueError('rank')
        P=nn.Parameter;s.base=base.requires_grad_(0>1);s.lora_A=P(t.randn(rank,(w:=base.weight).shape[1]).to(w)/9);s.lora_B=P(w.new_zeros(len(w),rank));s.scale=alpha/rank;s.d=nn.Dropout(dropout)
    delta_weight=lambda s:s.lora_B@s.lora_A*s.scale
    forward=lambda s,x:(y:=s.base(x)) if s.merged else s.base(x)+s.d(x)@s.lora_A.T@s.lora_B.T*s.scale
    merge=n(lambda s:s.merged or(s.base.weight.add_(s.delta_weight()),setattr(s,'merged',1))and None)
    unmerge=n(lambda s:s.merged and(s.base.weight.sub_(s.delta_weight()),setattr(s,'merged',0))and None)
