// Form B, as in attention.cu, on windows of 3 x 3 and maps of 7 or 14 columns: rows that are no whole vectors.
//
// A block copies the channels of one head to shared memory in vectors. A thread takes a segment of a row through every
// so many channels; the slices of a segment are neighbours in a warp, which shuffles add up. Results take the place of
// what is no longer read, and go back as vectors again.
#include "planes.cuh"

constexpr int TAPS = 9;  // of 3 x 3

struct Shape {
  int images, heads, head_width;
  int slices;  // of a head's channels, a power of two
  int height;
  float scale;
};

struct Attention {
  const void* query;  // [N, C, H, W], as are all
  const void* key;
  const void* value;
  void* y;
  Shape shape;
};

struct AttentionGradients {
  const void* gradient;  // [N, C, H, W], as are all
  const void* query;
  const void* key;
  const void* value;
  void* grad_query;
  void* grad_key;
  void* grad_value;
  Shape shape;
};

// The most threads of a block: a head that fits has no more segments and slices.
constexpr int MAX_THREADS = 128;

// What a block and a thread of it take care of.
struct Place {
  bool block_exists, exists;
  int plane, values;   // values of a plane, and of the head
  int slice, number;   // of the segment
  int first, step;     // offset of its first pixel in the slice's first channel, and from there to the next channel
  int share;           // channels of the slice
  long long head;      // offset of the head
};

template <int PER_ROW>
DEVICE Place place_of(const Shape& shape) {
  const long long image = blockIdx.z * gridDim.y + blockIdx.y;
  const int plane = shape.height * PER_ROW * SEGMENT, values = shape.head_width * plane;
  const int slice = threadIdx.x & (shape.slices - 1), segments = plane / SEGMENT;
  const int shift = __ffs(shape.slices) - 1, wanted = threadIdx.x >> shift;
  // All threads must come to the shuffles: those that are left over follow the last segment's, and write nothing.
  const int number = min(wanted, segments - 1);
  return {image < shape.images,
          wanted < segments,
          plane,
          values,
          slice,
          number,
          slice * plane + number * SEGMENT,
          shape.slices * plane,
          shape.head_width >> shift,
          (image * shape.heads + blockIdx.x) * values};
}

// Adds up what the slices of a segment have found, and gives the sums, times `scale`, to all of them. Each slice adds
// the same two numbers at a time, so that all come to the same sums.
DEVICE void add_slices(float (&sums)[TAPS][SEGMENT], const Shape& shape) {
#pragma unroll 1
  for (int distance = 1; distance < shape.slices; distance *= 2)
#pragma unroll
    for (int i = 0; i < TAPS * SEGMENT; ++i)
      sums[i / SEGMENT][i % SEGMENT] += __shfl_xor_sync(0xffffffffu, sums[i / SEGMENT][i % SEGMENT], distance);
  if (shape.scale == 1) return;
#pragma unroll
  for (int i = 0; i < TAPS * SEGMENT; ++i) sums[i / SEGMENT][i % SEGMENT] *= shape.scale;
}

// The affinities of a slice: over its channels, each pixel times those of the window around.
template <int PER_ROW, typename T>
DEVICE void find_affinities(float (&sums)[TAPS][SEGMENT], Run<T> own, Window<PER_ROW, T> window, int share) {
#pragma unroll
  for (int i = 0; i < TAPS * SEGMENT; ++i) sums[i / SEGMENT][i % SEGMENT] = 0;
#pragma unroll 1
  for (int member = 0; member < share; ++member) {
    float pixels[SEGMENT], rows[3][SEGMENT + 2];
    load_run(pixels, own);
    load_window(rows, window);
    correlate<3>(sums, pixels, rows);
  }
}

// Weighs the windows of a slice's channels.
template <int PER_ROW, typename T>
DEVICE void weigh_members(Run<T> to, Window<PER_ROW, T> window, const float (&affinities)[TAPS][SEGMENT], int share,
                          bool exists) {
#pragma unroll 1
  for (int member = 0; member < share; ++member) {
    float rows[3][SEGMENT + 2], sums[SEGMENT];
    load_window(rows, window);
    weigh<3>(sums, affinities, rows);
    if (exists) store_run(to, sums);
  }
}

// Predicted bound on an H200: memory, 0.49 cycles of a multiprocessor an output; instructions issue in 0.49, and shared
// memory is busy for 0.46 on 14 x 14 with heads of 32 channels, 0.50 on 7 x 7 with heads of 64.
template <typename T, int PER_ROW>
__global__ void __launch_bounds__(MAX_THREADS) attend_planes(const Attention p) {
  const Place place = place_of<PER_ROW>(p.shape);
  if (!place.block_exists) return;
  SHARED_MEMORY(T, shared);
  const int query = ZEROS, key = query + place.values, value = key + place.values;
  copy_in(shared + query, static_cast<const T*>(p.query) + place.head, place.values);
  copy_in(shared + key, static_cast<const T*>(p.key) + place.head, place.values);
  copy_in(shared + value, static_cast<const T*>(p.value) + place.head, place.values);
  finish_copies(shared);

  const auto own = [&](int tensor) { return run_at(shared, tensor + place.first, true, place.step); };
  const auto around = [&](int tensor) {
    return window_at<PER_ROW>(shared, tensor + place.first, place.number, place.number / PER_ROW, p.shape.height,
                              place.step);
  };
  float affinities[TAPS][SEGMENT];
  find_affinities<PER_ROW>(affinities, own(query), around(key), place.share);
  add_slices(affinities, p.shape);
  __syncthreads();
  // Nobody reads the query any more: the result takes its place.
  weigh_members<PER_ROW>(own(query), around(value), affinities, place.share, place.exists);
  __syncthreads();
  copy_out(static_cast<T*>(p.y) + place.head, shared + query, place.values);
}

// Keeps affinities, [TAPS, H, W].
DEVICE void keep_affinities(float* kept, const float (&affinities)[TAPS][SEGMENT], const Place& place) {
  if (!place.exists || place.slice) return;
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap)
#pragma unroll
    for (int i = 0; i < SEGMENT; ++i) kept[tap * place.plane + place.number * SEGMENT + i] = affinities[tap][i];
}

DEVICE void load_affinities(float (&affinities)[TAPS][SEGMENT], const float* kept, const Place& place) {
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap)
#pragma unroll
    for (int i = 0; i < SEGMENT; ++i) affinities[tap][i] = kept[tap * place.plane + place.number * SEGMENT + i];
}

// Loads for each pixel of a segment the affinities that others have to it, zeros for those beyond the image.
template <int PER_ROW>
DEVICE void load_turned(float (&affinities)[TAPS][SEGMENT], const float* kept, const float* zeros, const Place& place,
                        int height) {
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) {
    const int down = tap / 3 - 1, right = tap % 3 - 1;
    const float* from = kept + (TAPS - 1 - tap) * place.plane + (place.number + down * PER_ROW) * SEGMENT;
    if (!has_row(place.number / PER_ROW, down, height)) from = zeros;
#pragma unroll
    for (int i = 0; i < SEGMENT; ++i) {
      const int column = i + right;
      const bool beside = PER_ROW == 2 && place.number % 2 == (column < 0);
      const bool inside = (column >= 0 && column < SEGMENT) || beside;
      affinities[tap][i] = *(inside ? from + column : zeros);
    }
  }
}

// All three gradients. With the roles as in attention.cu, that of the key has the affinities of that of the query,
// turned round: of the gradient to the values, which are found once and go through shared memory.
//
// Predicted bound on an H200, for an element of x, where memory takes 0.85 cycles: on 14 x 14 with heads of 32 channels
// instructions, 1.10, with shared memory busy for 1.06; on 7 x 7 with heads of 64 shared memory, 1.13, and instructions
// issue in 1.11. There in float32: memory, 1.70; shared memory is busy for 1.51, and instructions issue in 0.97.
template <typename T, int PER_ROW>
__global__ void __launch_bounds__(MAX_THREADS, 2) attend_planes_backward(const AttentionGradients p) {
  const Place place = place_of<PER_ROW>(p.shape);
  if (!place.block_exists) return;
  SHARED_MEMORY(T, shared);
  const int gradient = ZEROS, query = gradient + place.values, key = query + place.values, value = key + place.values;
  float* kept = reinterpret_cast<float*>(shared + value + place.values);
  copy_in(shared + gradient, static_cast<const T*>(p.gradient) + place.head, place.values);
  copy_in(shared + value, static_cast<const T*>(p.value) + place.head, place.values);
  copy_in(shared + key, static_cast<const T*>(p.key) + place.head, place.values);
  copy_in(shared + query, static_cast<const T*>(p.query) + place.head, place.values);
  finish_copies(shared);

  const auto own = [&](int tensor) { return run_at(shared, tensor + place.first, true, place.step); };
  const auto around = [&](int tensor) {
    return window_at<PER_ROW>(shared, tensor + place.first, place.number, place.number / PER_ROW, p.shape.height,
                              place.step);
  };
  float affinities[TAPS][SEGMENT], others[TAPS][SEGMENT];
  find_affinities<PER_ROW>(affinities, own(gradient), around(value), place.share);
  add_slices(affinities, p.shape);
  keep_affinities(kept, affinities, place);
  __syncthreads();

  // Gradients take the places of what nobody reads any more: that of the key of the value,
  load_turned<PER_ROW>(affinities, kept, reinterpret_cast<const float*>(shared) + 1, place, p.shape.height);
#pragma unroll
  for (int i = 0; i < TAPS * SEGMENT; ++i) others[i / SEGMENT][i % SEGMENT] = 0;
  Run<T> keys = own(key), grad_keys = own(value);
  Window<PER_ROW, T> queries = around(query);
#pragma unroll 1
  for (int member = 0; member < place.share; ++member) {
    float pixels[SEGMENT], rows[3][SEGMENT + 2];
    load_run(pixels, keys);
    load_window(rows, queries);
    correlate<3>(others, pixels, rows);
    weigh<3>(pixels, affinities, rows);
    if (place.exists) store_run(grad_keys, pixels);
  }
  add_slices(others, p.shape);
  __syncthreads();
  // that of the query its own,
  load_affinities(affinities, kept, place);
  weigh_members<PER_ROW>(own(query), around(key), affinities, place.share, place.exists);
  __syncthreads();
  // and that of the value of the key.
  weigh_members<PER_ROW>(own(key), around(gradient), others, place.share, place.exists);
  __syncthreads();
  copy_out(static_cast<T*>(p.grad_query) + place.head, shared + query, place.values);
  copy_out(static_cast<T*>(p.grad_key) + place.head, shared + value, place.values);
  copy_out(static_cast<T*>(p.grad_value) + place.head, shared + key, place.values);
}
