// Involution by our kernels. Which of them runs is decided in cuda.py.
#include "aggregation.cuh"
