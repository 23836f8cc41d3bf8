import torch as t
S=lambda k:t.special.ndtri(t.linspace(.9677083,.5,k).double())
def nf4_codebook():a,b=S(8),S(9);return t.cat([-a/a[0],(b/b[0]).flip(0)[1:]]).float()
def quantize_nf4(weight,block_size=64):
    if block_size<1:raise ValueError('block_size')
    if not weight.isfinite().all():raise ValueError('weight')
    f=weight.flatten().double();n=len(f);m=-(-n//block_size)
    b=t.cat([f,f.new_zeros(m*block_size-n)]).view(m,-1);a=b.abs().amax(1)
    T=nf4_codebook().to(f);c=((b/(a+(a==0))[:,None]).flatten()[:n,None]>(T[1:]+T[:-1])/2).sum(1)
    c=t.cat([c,c.new_full((n%2,),7)]).byte();return c[::2]<<4|c[1::2],a.float()
def dequantize_nf4(codes,absmax,shape,block_size=64,dtype=t.float32):
    i=t.stack([codes>>4,codes&15],1).flatten().int();n=t.Size(shape).numel()
    return (nf4_codebook().to(absmax)[i[:n]]*absmax.repeat_interleave(block_size)[:n]).to(dtype).view(shape)
