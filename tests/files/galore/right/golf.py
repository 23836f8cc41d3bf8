import torch as T
class GaLoreProjector:
    def __init__(s,rank,update_interval=200,scale=1.):
        if rank<1:raise ValueError("rank")
        s.r,s.k,s.s,s.i=rank,update_interval,scale,0
    def project(s,g):
        if s.i%s.k<1:
            s.w=g.shape[0]<=g.shape[1];U,_,V=T.linalg.svd(g,full_matrices=False);s.P=U[:,:s.r]if s.w else V[:s.r].T
        s.i+=1;return s.P.T@g if s.w else g@s.P
    def project_back(s,x):return(s.P@x if s.w else x@s.P.T)*s.s
def galore_adam_step(weight,grad,state,projector,lr,betas=(.9,.999),eps=1e-8):
    x=projector.project(grad);state["t"]=t=state.get("t",0)+1
    h=[state.__setitem__(k,b*state.get(k,0)+(1-b)*y)or state[k]/(1-b**t)for k,(b,y)in enumerate(zip(betas,(x,x*x)))]
    with T.no_grad():weight-=lr*projector.project_back(h[0]/(h[1].sqrt()+eps))
