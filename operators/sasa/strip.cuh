// A strip: four pixels of a row and a few of their channels, what one thread holds where the window is small.
//
// The lanes of a warp that share four pixels have their channels between them, and sum over channels by shuffles.
#pragma once
#include "window.cuh"

constexpr int STRIP = 4;
constexpr int STRIP_THREADS = 128;

struct Strip {
  int map, row, column;  // its first pixel
  int slot;              // among the strips of the block
  int share, channel;    // its place among the lanes that share the pixels, and its first channel
  bool inside;

  DEVICE Strip at(const Extents& x, int shares, int tiles, int channels) {
    const int lanes = 32 / shares, lane = threadIdx.x % 32, per_row = (x.width + STRIP - 1) / STRIP;
    Strip strip;
    strip.map = blockIdx.x / tiles;
    strip.slot = threadIdx.x / 32 * lanes + lane % lanes;
    const int index = (blockIdx.x - strip.map * tiles) * (STRIP_THREADS / shares) + strip.slot;
    strip.row = index / per_row;
    strip.column = (index - strip.row * per_row) * STRIP;
    strip.share = lane / lanes;
    strip.channel = strip.share * channels;
    strip.inside = strip.row < x.height;
    return strip;
  }
};

// The columns that the windows of a strip see, in vectors of VEC values, each wholly inside the image or outside.
template <int K, int VEC>
struct Columns {
  static constexpr int RADIUS = K / 2, LEFT = (RADIUS + VEC - 1) / VEC * VEC;
  static constexpr int SPAN = LEFT + (STRIP + RADIUS + VEC - 1) / VEC * VEC;
  static constexpr int SHIFT = LEFT - RADIUS;  // of the first column that is needed, from the first that is loaded

  // Which vectors of a row of the image are in it.
  DEVICE void inside(bool (&vectors)[SPAN / VEC], const Extents& x, const Strip& strip, int row) {
#pragma unroll
    for (int i = 0; i < SPAN / VEC; ++i) {
      const int column = strip.column - LEFT + i * VEC;
      vectors[i] = strip.inside && row >= 0 && row < x.height && column >= 0 && column < x.width;
    }
  }
};

// `values` of a row beginning at `first`, in vectors; zero for those that are not in the image.
template <int VEC, typename T, int N>
DEVICE void load_row(float (&values)[N], const T* first, const bool (&inside)[N / VEC]) {
#pragma unroll
  for (int i = 0; i < N / VEC; ++i) {
    float some[VEC];
#pragma unroll
    for (int j = 0; j < VEC; ++j) some[j] = 0;
    if (inside[i]) load_floats<T>(some, first + i * VEC);
#pragma unroll
    for (int j = 0; j < VEC; ++j) values[i * VEC + j] = some[j];
  }
}

template <int VEC, typename T>
DEVICE void store_strip(T* first, const float (&values)[STRIP], int columns) {
#pragma unroll
  for (int i = 0; i < STRIP / VEC; ++i) {
    float some[VEC];
#pragma unroll
    for (int j = 0; j < VEC; ++j) some[j] = values[i * VEC + j];
    if (i * VEC < columns) store_floats<T>(first + i * VEC, some);
  }
}

// The same four pixels of CHANNELS planes; channels that the head does not have are zero.
template <int VEC, typename T, int CHANNELS>
DEVICE void load_strip(float (&values)[CHANNELS][STRIP], const T* map, const Extents& x, const Strip& strip) {
#pragma unroll
  for (int e = 0; e < CHANNELS; ++e) {
    const int channel = strip.channel + e;
    bool inside[STRIP / VEC];
#pragma unroll
    for (int i = 0; i < STRIP / VEC; ++i)
      inside[i] = strip.inside && channel < x.channels && strip.column + i * VEC < x.width;
    load_row<VEC>(values[e], map + (channel * x.height + strip.row) * x.width + strip.column, inside);
  }
}

// sums[pixel] -= over this thread's channels, one[channel][pixel] times the same pixels of another map.
template <int VEC, typename T, int CHANNELS>
DEVICE void subtract_products(float (&sums)[STRIP], const float (&one)[CHANNELS][STRIP], const T* map,
                              const Extents& x, const Strip& strip) {
  float other[CHANNELS][STRIP];
  load_strip<VEC>(other, map, x, strip);
#pragma unroll
  for (int e = 0; e < CHANNELS; ++e)
#pragma unroll
    for (int pixel = 0; pixel < STRIP; ++pixel) sums[pixel] = fmaf(-one[e][pixel], other[e][pixel], sums[pixel]);
}

// Where a thread's channel lies in its map. One that the head does not have is its last, so that loads need no test:
// what it is multiplied with is zero, or what comes of it is not stored.
DEVICE int channel_offset(const Extents& x, const Strip& strip, int e) {
  return min(strip.channel + e, x.channels - 1) * x.height * x.width;
}

// Adds up over the lanes that share a strip; afterwards all of them have the sums.
template <int N>
DEVICE void sum_shares(float (&values)[N], int shares) {
  for (int distance = 16; distance * shares >= 32; distance /= 2)
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] += __shfl_xor_sync(0xffffffffu, values[i], distance);
}

// Embeddings as two tables [channel][K] in shared memory: of rows, zero for the second half of the channels, and of
// columns, zero for the first; both zero for channels that the head does not have.
template <int K>
struct Tables {
  float *row, *column;

  template <typename T>
  DEVICE Tables fill(float* memory, const void* rel_h, const void* rel_w, const Extents& x, int map, int channels) {
    const Tables tables = {memory, memory + channels * K};
    const auto rel = Embeddings<T>::of(rel_h, rel_w, x, map);
    for (int i = threadIdx.x; i < channels * K; i += STRIP_THREADS) {
      const int channel = i / K, shift = i - channel * K;
      const float value = channel < x.channels ? rel.at(channel, shift, shift) : 0.0f;
      tables.row[i] = channel < rel.half ? value : 0.0f;
      tables.column[i] = channel < rel.half ? 0.0f : value;
    }
    __syncthreads();
    return tables;
  }
};

// A thread's share of query times column embedding, for its four queries and each column of the window, kept in shared
// memory: it is needed again for every row. No other thread reads it.
template <int K>
struct ColumnLogits {
  float* mine;

  // Outside the image, where keys are left out, the sum of all shares must be below every logit.
  template <int CHANNELS>
  DEVICE ColumnLogits fill(float* memory, const float (&q)[CHANNELS][STRIP], const float* table, const Extents& x,
                           const Strip& strip) {
    const ColumnLogits logits = {memory + STRIP * threadIdx.x};
#pragma unroll
    for (int b = 0; b < K; ++b) {
      float some[STRIP];
#pragma unroll
      for (int pixel = 0; pixel < STRIP; ++pixel) {
        const int column = strip.column + pixel + b - K / 2;
        some[pixel] = x.masked && (column < 0 || column >= x.width) ? LEFT_OUT : 0.0f;
      }
#pragma unroll
      for (int e = 0; e < CHANNELS; ++e)
#pragma unroll
        for (int pixel = 0; pixel < STRIP; ++pixel)
          some[pixel] = fmaf(q[e][pixel], table[(strip.channel + e) * K + b], some[pixel]);
      store_floats<float>(logits.mine + b * STRIP * STRIP_THREADS, some);
    }
    return logits;
  }

  // The logits of row `a` but for the keys: what its row and columns add.
  template <int CHANNELS>
  __device__ __forceinline__ void start(float (&logits)[K][STRIP], const float (&q)[CHANNELS][STRIP],
                                        const float* table, int a, bool left_out, const Strip& strip) const {
    float of_row[STRIP];
#pragma unroll
    for (int pixel = 0; pixel < STRIP; ++pixel) of_row[pixel] = left_out ? LEFT_OUT : 0.0f;
#pragma unroll
    for (int e = 0; e < CHANNELS; ++e) {
      const float embedding = table[(strip.channel + e) * K + a];
#pragma unroll
      for (int pixel = 0; pixel < STRIP; ++pixel) of_row[pixel] = fmaf(q[e][pixel], embedding, of_row[pixel]);
    }
#pragma unroll
    for (int b = 0; b < K; ++b) {
      float some[STRIP];
      load_floats<float>(some, mine + b * STRIP * STRIP_THREADS);
#pragma unroll
      for (int pixel = 0; pixel < STRIP; ++pixel) logits[b][pixel] = of_row[pixel] + some[pixel];
    }
  }
};

// sums[b][pixel] += over channels, one[channel][pixel] times another's row at the column of tap b of that pixel;
// `row` is the first column that is loaded, in the map's first channel.
template <int K, int VEC, int CHANNELS, typename T>
DEVICE void add_products(float (&sums)[K][STRIP], const float (&one)[CHANNELS][STRIP], const T* row, const Extents& x,
                         const Strip& strip, const bool (&inside)[Columns<K, VEC>::SPAN / VEC]) {
  typedef Columns<K, VEC> Seen;
#pragma unroll
  for (int e = 0; e < CHANNELS; ++e) {
    float other[Seen::SPAN];
    load_row<VEC>(other, row + channel_offset(x, strip, e), inside);
#pragma unroll
    for (int b = 0; b < K; ++b)
#pragma unroll
      for (int pixel = 0; pixel < STRIP; ++pixel)
        sums[b][pixel] = fmaf(one[e][pixel], other[Seen::SHIFT + pixel + b], sums[b][pixel]);
  }
}

// sums[channel][pixel] += over the taps of a row, weight[b][pixel] times another's row at the column of tap b.
template <int K, int VEC, int CHANNELS, typename T>
DEVICE void add_weighted(float (&sums)[CHANNELS][STRIP], const float (&weight)[K][STRIP], const T* row,
                         const Extents& x, const Strip& strip, const bool (&inside)[Columns<K, VEC>::SPAN / VEC]) {
  typedef Columns<K, VEC> Seen;
#pragma unroll
  for (int e = 0; e < CHANNELS; ++e) {
    float other[Seen::SPAN];
    load_row<VEC>(other, row + channel_offset(x, strip, e), inside);
#pragma unroll
    for (int b = 0; b < K; ++b)
#pragma unroll
      for (int pixel = 0; pixel < STRIP; ++pixel)
        sums[e][pixel] = fmaf(weight[b][pixel], other[Seen::SHIFT + pixel + b], sums[e][pixel]);
  }
}

// The same for two sums and their weights at once, of the same row.
template <int K, int VEC, int CHANNELS, typename T>
DEVICE void add_both_weighted(float (&one)[CHANNELS][STRIP], const float (&weight)[K][STRIP],
                              float (&other)[CHANNELS][STRIP], const float (&other_weight)[K][STRIP], const T* row,
                              const Extents& x, const Strip& strip,
                              const bool (&inside)[Columns<K, VEC>::SPAN / VEC]) {
  typedef Columns<K, VEC> Seen;
#pragma unroll
  for (int e = 0; e < CHANNELS; ++e) {
    float values[Seen::SPAN];
    load_row<VEC>(values, row + channel_offset(x, strip, e), inside);
#pragma unroll
    for (int b = 0; b < K; ++b)
#pragma unroll
      for (int pixel = 0; pixel < STRIP; ++pixel) {
        one[e][pixel] = fmaf(weight[b][pixel], values[Seen::SHIFT + pixel + b], one[e][pixel]);
        other[e][pixel] = fmaf(other_weight[b][pixel], values[Seen::SHIFT + pixel + b], other[e][pixel]);
      }
  }
}
