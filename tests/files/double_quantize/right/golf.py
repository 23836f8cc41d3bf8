import torch as t
def double_quantize(absmax,block_size=256):
    a=absmax.float();m=a.mean();B=[*(a-m).split(block_size)];s=t.stack([b.abs().max()/127 for b in B])
    return t.cat([(b/(k+(k==0))).round().char() for b,k in zip(B,s)]),s,m
dequantize_absmax=lambda codes,scales,mean,block_size=256:t.cat([c*s for c,s in zip(codes.split(block_size),scales)])+mean
bits_per_param=lambda block_size=64,absmax_block_size=256,double=True:4+(8+32/absmax_block_size if double else 32)/block_size
