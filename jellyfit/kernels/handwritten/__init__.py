"""CUDA kernels written by hand: the loops, the argument checks and the launch are ours, the lines inside are yours.

A neuron needs none of this: its kernels are generated from its PyTorch code. These classes are for experiments with
CUDA itself. Names and arguments follow SpikingJelly's paper: a kernel is a subclass or an instance that gets parameters
(:meth:`CKernel.add_param`) and CUDA lines.

One element a thread::

    >>> heaviside = CKernel1D("heaviside")
    >>> heaviside.add_param("const float *", "x")
    >>> heaviside.add_param("float *", "y")
    >>> heaviside.core = "y[index] = x[index] >= 0.0f ? 1.0f : 0.0f;"
    >>> print(heaviside.full_codes)
    extern "C" __global__ void heaviside(const long long numel, const float * x, float * y) {
        const long long index = (long long)blockIdx.x * blockDim.x + threadIdx.x;
        if (index < numel) {
            y[index] = x[index] >= 0.0f ? 1.0f : 0.0f;
        }
    }
    <BLANKLINE>

``heaviside.simple_call(x=x, y=y)`` runs it on CUDA tensors and writes into ``y``.

A neuron's forward pass, of which a subclass writes the charge; firing and reset are traced from PyTorch code::

    >>> class IFNodeFPTTKernel(NeuronFPTTKernel):
    ...     def neuronal_charge(self):
    ...         return "h_seq[t] = v_v_seq[t] + x_seq[t];"
    >>> print(IFNodeFPTTKernel(hard_reset=True, dtype="float").full_codes)
    typedef float real;
    #define R(x) x##f
    // Fire and reset.
    __device__ __forceinline__ void fire(const real h, const real v_th, const real v_reset, real* spike, real* v) {
        const real t0 = h - v_th;  // fire
        const int t1 = (t0 >= R(0.0));
        const real s = (t1 ? R(1.0) : R(0.0));
        const real t2 = R(1.0) - s;  // reset
        const real t3 = t2 * h;
        const real t4 = s * v_reset;
        const real v_next = t3 + t4;
        *spike = s;
        *v = v_next;
    }
    <BLANKLINE>
    extern "C" __global__ void IFNodeFPTTKernel_float_hard_reset(const long long numel, const long long N,
            const float * x_seq, float * v_v_seq, float * h_seq, float * spike_seq, const float v_th,
            const float v_reset) {
        const long long index = (long long)blockIdx.x * blockDim.x + threadIdx.x;
        if (index < N) {
            const long long dt = N;
            for (long long t = index; t < numel; t += dt) {
                h_seq[t] = v_v_seq[t] + x_seq[t];
                fire(h_seq[t], v_th, v_reset, &spike_seq[t], &v_v_seq[t + dt]);
            }
        }
    }
    <BLANKLINE>

Numbers (``float &``) are passed by value. Tensors have to be contiguous and on one CUDA device, since a kernel writes
into the very memory that it is given; anything else is an error that names the parameter.
"""

from jellyfit.kernels.handwritten.base import CKernel, CKernel1D, CKernel2D
from jellyfit.kernels.handwritten.neuron import NeuronBPTTKernel, NeuronFPTTKernel

__all__ = ["CKernel", "CKernel1D", "CKernel2D", "NeuronBPTTKernel", "NeuronFPTTKernel"]
