// DRConv without matrix products: the regions of a guide, its gradient, and groups of few channels, for which a tile
// would be mostly padding.
#include "regions.cuh"

struct Arrange {
  const void* guide;  // [N, regions, Ho, Wo]
  int* places;        // [N] images as `Regions`
  int regions, pixels;
};

// One block is one image, each of its warps so many pixels in a row. A pixel's region is the first whose guide is
// greatest. NaN is never greater than anything, so a pixel whose guide begins with NaN stays in region 0; the reference
// does not say what should become of it. The warps count their pixels of each region, then list them from where the
// counts of earlier regions and warps say, 32 at a time, so the order is that of the image whatever the timing.
template <typename T>
__global__ void __launch_bounds__(512) arrange(const Arrange p) {
  SHARED_MEMORY(int, begins);                 // [regions + 1]
  int* counts = begins + p.regions + 1;       // [warps, regions]; then how far each warp has come in each region
  const int warps = blockDim.x / 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int *own = counts + warp * p.regions, *of_pixel = p.places + static_cast<long long>(blockIdx.x) *
                                                                   Regions::size(p.pixels, p.regions);
  int *listed = of_pixel + p.pixels, *kept_begins = of_pixel + 2 * p.pixels;
  const T* guide = static_cast<const T*>(p.guide) + static_cast<long long>(blockIdx.x) * p.regions * p.pixels;
  const int share = (p.pixels + blockDim.x - 1) / blockDim.x * 32, first = warp * share;
  const int last = min(first + share, p.pixels);
  for (int region = lane; region < p.regions; region += 32) own[region] = 0;
  __syncwarp();
  for (int at = first; at < last; at += 32) {
    const int pixel = at + lane;
    int chosen = -1;
    if (pixel < last) {
      float greatest = to_float(guide[pixel]);
      chosen = 0;
#pragma unroll 4
      for (int region = 1; region < p.regions; ++region) {
        const float value = to_float(guide[static_cast<long long>(region) * p.pixels + pixel]);
        if (value > greatest) greatest = value, chosen = region;
      }
      of_pixel[pixel] = chosen;
    }
    for (int region = 0; region < p.regions; ++region) {
      const unsigned found = __ballot_sync(0xffffffffu, chosen == region);
      if (lane == region % 32) own[region] += __popc(found);
    }
  }
  __syncthreads();
  for (int region = threadIdx.x; region < p.regions; region += blockDim.x) {
    int before = 0;
    for (int other = 0; other < warps; ++other) {
      const int count = counts[other * p.regions + region];
      counts[other * p.regions + region] = before;
      before += count;
    }
    begins[region + 1] = before;
  }
  if (threadIdx.x == 0) begins[0] = 0;
  __syncthreads();
  if (threadIdx.x == 0)
    for (int region = 0; region < p.regions; ++region) begins[region + 1] += begins[region];
  __syncthreads();
  for (int region = threadIdx.x; region <= p.regions; region += blockDim.x) kept_begins[region] = begins[region];
  for (int at = first; at < last; at += 32) {
    const int pixel = at + lane, chosen = pixel < last ? of_pixel[pixel] : -1;
    for (int region = 0; region < p.regions; ++region) {
      const unsigned found = __ballot_sync(0xffffffffu, chosen == region);
      if (chosen == region) listed[begins[region] + own[region] + __popc(found & ((1u << lane) - 1))] = pixel;
      __syncwarp();
      if (lane == region % 32) own[region] += __popc(found);
    }
    __syncwarp();
  }
}

struct Guide {
  const void* guide;    // [N, regions, Ho, Wo]
  const float* shares;  // [N, regions, Ho, Wo]: what each region's response is multiplied by, summed over outputs
  void* result;         // [N, regions, Ho, Wo]
  int regions, pixels, chunks;
};

// One thread is one pixel: the gradient of the softmax that stands in for the choice.
template <typename T>
__global__ void __launch_bounds__(256) guide_gradient(const Guide p) {
  const int image = blockIdx.x / p.chunks, pixel = (blockIdx.x - image * p.chunks) * 256 + threadIdx.x;
  if (pixel >= p.pixels) return;
  const long long first = static_cast<long long>(image) * p.regions * p.pixels + pixel;
  const T* guide = static_cast<const T*>(p.guide) + first;
  const float* shares = p.shares + first;
  T* result = static_cast<T*>(p.result) + first;
  const long long pitch = p.pixels;
  float greatest = to_float(guide[0]);
  for (int region = 1; region < p.regions; ++region) greatest = fmaxf(greatest, to_float(guide[region * pitch]));
  float total = 0, mean = 0;
  for (int region = 0; region < p.regions; ++region) {
    const float weight = expf(to_float(guide[region * pitch]) - greatest);
    total += weight;
    mean = fmaf(weight, shares[region * pitch], mean);
  }
  mean /= total;
  for (int region = 0; region < p.regions; ++region) {
    const float share = expf(to_float(guide[region * pitch]) - greatest) / total;
    result[region * pitch] = from_float<T>(share * (shares[region * pitch] - mean));
  }
}

struct Geometry {
  int height, width, rows, columns;  // of the input and of the output
  int kernel, stride, padding, dilation;
  int groups, channels, outputs, regions;  // channels and outputs of a group
};

// The tensors' offsets of one image.
DEVICE long long of_inputs(const Geometry& at, int image) {
  return static_cast<long long>(image) * at.groups * at.channels * at.height * at.width;
}
DEVICE long long of_outputs(const Geometry& at, int image) {
  return static_cast<long long>(image) * at.groups * at.outputs * at.rows * at.columns;
}
DEVICE long long of_filters(const Geometry& at, int image, int region) {
  const long long size = static_cast<long long>(at.groups) * at.outputs * at.channels * at.kernel * at.kernel;
  return (static_cast<long long>(image) * at.regions + region) * size;
}

// What a filter [channels, kernel, kernel] answers to the window of one output pixel.
template <typename T>
DEVICE float response(const Geometry& at, const T* x, const T* filter, int pixel) {
  const int top = pixel / at.columns * at.stride - at.padding, left = pixel % at.columns * at.stride - at.padding;
  float sum = 0;
  for (int channel = 0; channel < at.channels; ++channel, x += at.height * at.width)
    for (int a = 0; a < at.kernel; ++a)
      for (int b = 0; b < at.kernel; ++b, ++filter) {
        const int h = top + a * at.dilation, w = left + b * at.dilation;
        if (h >= 0 && h < at.height && w >= 0 && w < at.width)
          sum = fmaf(to_float(*filter), to_float(x[h * at.width + w]), sum);
      }
  return sum;
}

struct NarrowForward {
  const void* x;        // [N, G * channels, H, W]
  const void* filters;  // [N, regions, G * outputs, channels, k, k]
  const int* places;
  void* y;              // [N, G * outputs, Ho, Wo]
  Geometry at;
  int chunks;  // of 256 pixels in a plane
};

template <typename T>
__global__ void __launch_bounds__(256, 4) narrow_forward(const NarrowForward p) {
  const Geometry& at = p.at;
  const int plane = blockIdx.x / p.chunks, pixel = (blockIdx.x - plane * p.chunks) * 256 + threadIdx.x;
  const int pixels = at.rows * at.columns;
  if (pixel >= pixels) return;
  const int image = plane / (at.groups * at.outputs), output = plane - image * at.groups * at.outputs;
  const int region = Regions::of_image(p.places, image, pixels, at.regions).of_pixel[pixel];
  const T* x = static_cast<const T*>(p.x) + of_inputs(at, image) +
               output / at.outputs * at.channels * at.height * at.width;
  const T* filter = static_cast<const T*>(p.filters) + of_filters(at, image, region) +
                    output * at.channels * at.kernel * at.kernel;
  static_cast<T*>(p.y)[of_outputs(at, image) + output * pixels + pixel] = from_float<T>(response(at, x, filter, pixel));
}

struct NarrowInputGradient {
  const void* gradient;  // [N, G * outputs, Ho, Wo]
  const void* filters;   // [N, regions, G * outputs, channels, k, k]
  const int* places;
  void* result;          // [N, G * channels, H, W]
  Geometry at;
  int chunks;
};

template <typename T>
__global__ void __launch_bounds__(256) narrow_input_gradient(const NarrowInputGradient p) {
  const Geometry& at = p.at;
  const int plane = blockIdx.x / p.chunks, pixel = (blockIdx.x - plane * p.chunks) * 256 + threadIdx.x;
  if (pixel >= at.height * at.width) return;
  const int image = plane / (at.groups * at.channels), channel = plane - image * at.groups * at.channels;
  const int h = pixel / at.width + at.padding, w = pixel % at.width + at.padding, group = channel / at.channels;
  const int taps = at.kernel * at.kernel, pixels = at.rows * at.columns;
  const T* gradient = static_cast<const T*>(p.gradient) + of_outputs(at, image) + group * at.outputs * pixels;
  const Regions regions = Regions::of_image(p.places, image, pixels, at.regions);
  const int own_filter = (group * at.outputs * at.channels + channel % at.channels) * taps;
  float sum = 0;
  for (int a = 0; a < at.kernel; ++a) {
    const int y = (h - a * at.dilation) / at.stride;
    if (h < a * at.dilation || y >= at.rows || y * at.stride != h - a * at.dilation) continue;
    for (int b = 0; b < at.kernel; ++b) {
      const int x = (w - b * at.dilation) / at.stride;
      if (w < b * at.dilation || x >= at.columns || x * at.stride != w - b * at.dilation) continue;
      const int seen_by = y * at.columns + x;
      const T* filter = static_cast<const T*>(p.filters) + of_filters(at, image, regions.of_pixel[seen_by]) +
                        own_filter + a * at.kernel + b;
      for (int output = 0; output < at.outputs; ++output)
        sum = fmaf(to_float(filter[output * at.channels * taps]), to_float(gradient[output * pixels + seen_by]), sum);
    }
  }
  static_cast<T*>(p.result)[of_inputs(at, image) + channel * at.height * at.width + pixel] = from_float<T>(sum);
}

struct Sum {
  void* result;       // [N, G * channels, H, W]
  const float* taps;  // [N, G * channels, k, k, Ho, Wo]
  Geometry at;
  int chunks;
};

// One thread is one pixel: it adds what the outputs that see it give it, each through another tap.
template <typename T>
__global__ void __launch_bounds__(256) add_taps(const Sum p) {
  const Geometry& at = p.at;
  const int plane = blockIdx.x / p.chunks, pixel = (blockIdx.x - plane * p.chunks) * 256 + threadIdx.x;
  if (pixel >= at.height * at.width) return;
  const int h = pixel / at.width + at.padding, w = pixel % at.width + at.padding, pixels = at.rows * at.columns;
  const float* taps = p.taps + static_cast<long long>(plane) * at.kernel * at.kernel * pixels;
  float sum = 0;
  for (int a = 0; a < at.kernel; ++a) {
    const int down = h - a * at.dilation, y = down / at.stride;
    const bool in_column = down >= 0 && y < at.rows && down == y * at.stride;
#pragma unroll 4
    for (int b = 0; b < at.kernel; ++b, taps += pixels) {
      const int across = w - b * at.dilation, x = across / at.stride;
      if (in_column && across >= 0 && x < at.columns && across == x * at.stride) sum += taps[y * at.columns + x];
    }
  }
  static_cast<T*>(p.result)[static_cast<long long>(plane) * at.height * at.width + pixel] = from_float<T>(sum);
}

struct NarrowFilterGradient {
  const void* gradient;  // [N, G * outputs, Ho, Wo]
  const void* x;         // [N, G * channels, H, W]
  const int* places;
  void* result;          // [N, regions, G * outputs, channels, k, k]
  Geometry at;
  int chunks;  // of 8 weights in a region
};

// One warp is one weight; its lanes share the region's pixels.
template <typename T>
__global__ void __launch_bounds__(256) narrow_filter_gradient(const NarrowFilterGradient p) {
  const Geometry& at = p.at;
  const int taps = at.kernel * at.kernel, weights = at.groups * at.outputs * at.channels * taps;
  const int stack = blockIdx.x / p.chunks, weight = (blockIdx.x - stack * p.chunks) * 8 + threadIdx.x / 32;
  if (weight >= weights) return;
  const int image = stack / at.regions, region = stack - image * at.regions, pixels = at.rows * at.columns;
  const int tap = weight % taps, filter = weight / taps, channel = filter % at.channels, output = filter / at.channels;
  const int top = tap / at.kernel * at.dilation - at.padding, left = tap % at.kernel * at.dilation - at.padding;
  const T* x = static_cast<const T*>(p.x) + of_inputs(at, image) +
               (output / at.outputs * at.channels + channel) * at.height * at.width;
  const T* gradient = static_cast<const T*>(p.gradient) + of_outputs(at, image) + output * pixels;
  const Regions regions = Regions::of_image(p.places, image, pixels, at.regions);
  float sum = 0;
  for (int i = regions.begins[region] + threadIdx.x % 32; i < regions.begins[region + 1]; i += 32) {
    const int pixel = regions.by_region[i];
    const int h = pixel / at.columns * at.stride + top, w = pixel % at.columns * at.stride + left;
    if (h >= 0 && h < at.height && w >= 0 && w < at.width)
      sum = fmaf(to_float(gradient[pixel]), to_float(x[h * at.width + w]), sum);
  }
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) static_cast<T*>(p.result)[of_filters(at, image, region) + weight] = from_float<T>(sum);
}

struct NarrowResponses {
  const void* gradient;  // [N, G * outputs, Ho, Wo]
  const void* x;         // [N, G * channels, H, W]
  const void* filters;   // [N, regions, G * outputs, channels, k, k]
  float* shares;         // [N, regions, Ho, Wo]
  Geometry at;
  int chunks;  // of 256 pixels
};

// One thread is one pixel and one region: the product of the region's response with the gradient.
template <typename T>
__global__ void __launch_bounds__(256, 4) narrow_responses(const NarrowResponses p) {
  const Geometry& at = p.at;
  const int stack = blockIdx.x / p.chunks, pixel = (blockIdx.x - stack * p.chunks) * 256 + threadIdx.x;
  const int pixels = at.rows * at.columns, image = stack / at.regions;
  if (pixel >= pixels) return;
  const T* gradient = static_cast<const T*>(p.gradient) + of_outputs(at, image) + pixel;
  const T* x = static_cast<const T*>(p.x) + of_inputs(at, image);
  const T* filter = static_cast<const T*>(p.filters) + of_filters(at, image, stack - image * at.regions);
  float sum = 0;
  for (int output = 0; output < at.groups * at.outputs; ++output) {
    const T* group = x + output / at.outputs * at.channels * at.height * at.width;
    sum = fmaf(to_float(gradient[output * pixels]),
               response(at, group, filter + output * at.channels * at.kernel * at.kernel, pixel), sum);
  }
  p.shares[static_cast<long long>(stack) * pixels + pixel] = sum;
}
