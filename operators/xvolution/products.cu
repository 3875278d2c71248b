// Form A: products[n,d*C+c,p] = query[n,c,p] * key[n,c,p+step(d)], zeros outside the image; DIRECTIONS steps of `shift`
// pixels along the axes, or along the diagonals as well.
//
// One thread takes PIXELS neighbours of a row of a few channels. All of its loads are under way at once; keys and
// gradients of other rows come through L1. The gradient of the key is a gather with the steps turned round.
//
// Predicted bound on an H200, 4 directions: memory, 0.36 and 0.18 cycles of a multiprocessor a product in float32 and
// 16 bits, backward 0.49 and 0.24; instructions issue in a fifth to four fifths of that.
#include "rows.cuh"

struct Shape {
  int images, channels, height, width, shift;
};

struct Products {
  const void* query;  // [N, C, H, W]
  const void* key;    // [N, C, H, W]
  void* products;     // [N, DIRECTIONS * C, H, W]
  Shape shape;
};

struct ProductGradients {
  const void* gradient;  // [N, DIRECTIONS * C, H, W]
  const void* query;     // [N, C, H, W]; null unless the gradient of the key is wanted
  const void* key;       // [N, C, H, W]; null unless that of the query is wanted
  void* grad_query;      // [N, C, H, W] or null
  void* grad_key;        // [N, C, H, W] or null
  Shape shape;
};

constexpr int THREADS = 128;

// The pixels of a thread, and its first channel.
struct Place {
  bool exists;
  int row, column, pixel, channel;
  long long image;
};

template <int PIXELS, int CHANNELS>
DEVICE Place place_of(const Shape& shape) {
  const int image = blockIdx.z * gridDim.y + blockIdx.y;
  const Segment at = segment_at<PIXELS>(blockIdx.x * THREADS + threadIdx.x, shape.height, shape.width);
  const int channel = at.plane * CHANNELS, pixel = at.row * shape.width + at.column;
  return {image < shape.images && channel < shape.channels, at.row, at.column, pixel, channel, image};
}

// Where a direction goes, in multiples of the shift: the taps of a 3x3 window row by row, without the middle and, of
// four, without the corners.
template <int DIRECTIONS>
struct Step {
  int down, right;
  DEVICE Step of(int direction) {
    const int tap = DIRECTIONS == 4 ? 2 * direction + 1 : direction + direction / 4;
    return {tap / 3 - 1, tap % 3 - 1};
  }
};

// The pixels `down` and `right` times the shift from a segment, zeros where the image has none. SHIFT is the shift, or
// 0 where it is known only when running; what the segment's vector holds is not loaded one by one.
template <int SHIFT, typename T, int PIXELS>
DEVICE void load_shifted(float (&values)[PIXELS], const T* segment, const Place& at, int down, int right,
                         const Shape& shape) {
  const int shift = SHIFT ? SHIFT : shape.shift;
  const T* row = segment + down * shift * shape.width;
  const bool inside = has_row(at.row, down * shift, shape.height);
  float own[PIXELS] = {};
  if (inside) load_floats<T, PIXELS>(own, row);
#pragma unroll
  for (int i = 0; i < PIXELS; ++i) {
    const int from = i + right * shift;
    if ((SHIFT || right == 0) && from >= 0 && from < PIXELS)
      values[i] = own[from];
    else
      values[i] = inside && has_column(at.column, from, shape.width) ? to_float(row[from]) : 0;
  }
}

template <typename T, int DIRECTIONS, int SHIFT, int PIXELS, int CHANNELS>
__global__ void __launch_bounds__(THREADS) multiply(const Products p) {
  const Place at = place_of<PIXELS, CHANNELS>(p.shape);
  if (!at.exists) return;
  const int plane = p.shape.height * p.shape.width, channels = p.shape.channels;
  const long long first = (at.image * channels + at.channel) * plane + at.pixel;
  const T* query = static_cast<const T*>(p.query) + first;
  const T* key = static_cast<const T*>(p.key) + first;
  T* products = static_cast<T*>(p.products) + (at.image * DIRECTIONS * channels + at.channel) * plane + at.pixel;
  float queries[CHANNELS][PIXELS], keys[CHANNELS][DIRECTIONS][PIXELS];
#pragma unroll
  for (int c = 0; c < CHANNELS; ++c) {
    load_floats(queries[c], query + c * plane);
#pragma unroll
    for (int d = 0; d < DIRECTIONS; ++d) {
      const Step<DIRECTIONS> step = Step<DIRECTIONS>::of(d);
      load_shifted<SHIFT>(keys[c][d], key + c * plane, at, step.down, step.right, p.shape);
    }
  }
#pragma unroll
  for (int d = 0; d < DIRECTIONS; ++d)
#pragma unroll
    for (int c = 0; c < CHANNELS; ++c) {
#pragma unroll
      for (int i = 0; i < PIXELS; ++i) keys[c][d][i] *= queries[c][i];
      store_floats(products + (d * channels + c) * plane, keys[c][d]);
    }
}

// The gradients that are wanted, of one reading of the incoming one.
template <typename T, int DIRECTIONS, int SHIFT, int PIXELS, int CHANNELS, bool GRAD_QUERY, bool GRAD_KEY>
__global__ void __launch_bounds__(THREADS) multiply_backward(const ProductGradients p) {
  const Place at = place_of<PIXELS, CHANNELS>(p.shape);
  if (!at.exists) return;
  const int plane = p.shape.height * p.shape.width, channels = p.shape.channels;
  const long long first = (at.image * channels + at.channel) * plane + at.pixel;
  const long long first_product = (at.image * DIRECTIONS * channels + at.channel) * plane + at.pixel;
  const T* gradient = static_cast<const T*>(p.gradient) + first_product;
  const T* query = static_cast<const T*>(p.query) + first;
  const T* key = static_cast<const T*>(p.key) + first;
  float grad_query[CHANNELS][PIXELS] = {}, grad_key[CHANNELS][PIXELS] = {};
#pragma unroll
  for (int c = 0; c < CHANNELS; ++c)
#pragma unroll
    for (int d = 0; d < DIRECTIONS; ++d) {
      const Step<DIRECTIONS> step = Step<DIRECTIONS>::of(d);
      const T* gradients = gradient + (d * channels + c) * plane;
      float incoming[PIXELS], other[PIXELS];
      if constexpr (GRAD_QUERY) {
        load_floats(incoming, gradients);
        load_shifted<SHIFT>(other, key + c * plane, at, step.down, step.right, p.shape);
#pragma unroll
        for (int i = 0; i < PIXELS; ++i) grad_query[c][i] += incoming[i] * other[i];
      }
      if constexpr (GRAD_KEY) {
        load_shifted<SHIFT>(incoming, gradients, at, -step.down, -step.right, p.shape);
        load_shifted<SHIFT>(other, query + c * plane, at, -step.down, -step.right, p.shape);
#pragma unroll
        for (int i = 0; i < PIXELS; ++i) grad_key[c][i] += incoming[i] * other[i];
      }
    }
#pragma unroll
  for (int c = 0; c < CHANNELS; ++c) {
    if constexpr (GRAD_QUERY) store_floats(static_cast<T*>(p.grad_query) + first + c * plane, grad_query[c]);
    if constexpr (GRAD_KEY) store_floats(static_cast<T*>(p.grad_key) + first + c * plane, grad_key[c]);
  }
}
