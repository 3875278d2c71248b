// Involution of any kernel size, stride, dilation and group: the shared kernels, instantiated.
#include "aggregation.cuh"
