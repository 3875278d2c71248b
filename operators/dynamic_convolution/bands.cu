// Dynamic convolution with 3 x 3 windows at stride 1 in 16 bits, forward and back to the input: a matrix product whose
// windows are never gathered. Of 16 channels at a time a block keeps the pixels that its windows see in shared memory,
// pixel by pixel, so that each tap finds its operand there by an address, and mixes the filters once for all columns.
//
// Predicted bound on an H200 (not measured): at 64 channels, 56 x 56, issue, 1.0 cycles for each output where the tensor
// cores need 0.7; the deeper, the closer: 3.7 of 3.3 at 256 channels, 14 x 14. At 512 channels, 7 x 7, where each block
// mixes for four images, issue and shared memory, 11 cycles of 6.6. A block reads 36 KiB of experts for each 16 channels,
// which at 24 bytes a cycle of the second-level cache takes as long as it issues.
#include "windows.cuh"

constexpr int ROWS = 32, COLUMNS = 256, THREADS = 256;
constexpr int TAPS = 9, CHANNELS = 16, HALF = 8;  // 8 channels are the 16 bytes of a matrix row
constexpr int PIECE = 4;                          // weights of one load

struct Extents {
  View view;                              // of the result's positions into x
  int experts, images, groups;
  int channels, outputs;                  // of a group: what is summed over, and rows
  int band;                               // rows of x that a block's windows see, at most
  Divisor kept;                           // pixels in these
};

struct Forward {
  const void* x;          // [N, G * channels, H, W]
  const void* weight;     // [experts, G * outputs, channels, 3, 3]
  const void* bias;       // [experts, G * outputs] or null
  const void* attention;  // [N, experts]
  void* y;                // [N, G * outputs, Ho, Wo]
  Extents of;
};

struct InputGradient {
  const void* x;          // [N, G * channels, Ho, Wo]: the output's gradient
  const void* weight;     // [experts, G * channels, outputs, 3, 3]
  const void* attention;  // [N, experts]
  void* y;                // [N, G * outputs, H, W]
  Extents of;
};

// A block's shared memory. Its columns are those of IMAGES images, or of one.
template <typename T, int IMAGES>
struct Room {
  T* zeros;       // [HALF]
  T* pixels;      // [IMAGES, 2, kept, HALF]
  T* filters;     // [IMAGES, TAPS, 2, ROWS, HALF]
  float* shares;  // [experts, IMAGES]

  MEMBER Room(T* shared, int kept) {
    zeros = shared;
    pixels = zeros + HALF;
    filters = pixels + IMAGES * CHANNELS * kept;
    shares = reinterpret_cast<float*>(filters + IMAGES * TAPS * CHANNELS * ROWS);
  }
};

// The block's place: consecutive blocks have the same pixels.
template <int IMAGES>
struct Place {
  int row, group, image, column;  // the first of each

  DEVICE Place at(int block, const Extents& of) {
    constexpr int WIDE = COLUMNS / IMAGES;
    const int rows = (of.outputs + ROWS - 1) / ROWS, columns = (of.view.positions.by + WIDE - 1) / WIDE;
    const int groups_at = block / rows, rest = groups_at / of.groups, images_at = rest / columns;
    return {(block - groups_at * rows) * ROWS, groups_at - rest * of.groups, images_at * IMAGES,
            (rest - images_at * columns) * WIDE};
  }
};

// What a thread mixes of the filters of ROWS outputs and CHANNELS channels. In memory a filter's taps lie side by side,
// then those of the next channel, or where BACK of the next row: a line of them is 36 or 72 pieces. A thread has the
// same piece of every eighth line, and of BACK's longer lines a second one; the last 4 or 8 pieces of all lines are
// shared out among half of the threads.
template <bool BACK>
struct Pieces {
  static constexpr int LINES = BACK ? CHANNELS : ROWS, GROUPS = LINES / 8;
  static constexpr int OF_LINE = ROWS * CHANNELS * TAPS / LINES / PIECE, WHOLE = OF_LINE / 32, LEFT = OF_LINE % 32;
  // From a group of eight lines to the next in shared memory.
  static constexpr int STEP = 8 * (BACK ? ROWS : HALF);

  int first;       // weight of its line that the piece begins with
  int to[PIECE];   // where each value goes in shared memory

  MEMBER Pieces(int i) : first(spread(i) * PIECE) {
    const int line = threadIdx.x % 8;
#pragma unroll
    for (int e = 0; e < PIECE; ++e) {
      const int beside = (first + e) / TAPS, tap = first + e - beside * TAPS;
      const int k = BACK ? line : beside, row = BACK ? beside : line;
      to[e] = ((tap * 2 + k / HALF) * ROWS + row) * HALF + k % HALF;
    }
  }

 private:
  // Pieces of neighbouring eights of threads are 4 or 5 apart, which is two channels: in shared memory other banks.
  DEVICE int spread(int i) {
    constexpr int OCTETS = OF_LINE / 18;  // 18 pieces are eight channels
    const int rest = i - OCTETS * 16;
    return rest < 0 ? i / 16 * 18 + i % 16 / 4 + i % 4 * 9 / 2 : rest / 2 * 18 + 8 + rest % 2 * 9;
  }
};

// Mixes a piece for each image, from where the first expert's is, if it exists. EXPERTS is their number where a kernel
// is made for it, else 0.
template <int EXPERTS, typename T, int IMAGES>
DEVICE void mix_piece(const Room<T, IMAGES>& room, const T* from, bool exists, int experts, int expert_size,
                      const int (&to)[PIECE], int shift) {
  float sums[IMAGES][PIECE] = {};
  if (exists) {
    constexpr int AHEAD = EXPERTS > 0 ? EXPERTS : 1;
#pragma unroll AHEAD
    for (int expert = 0; expert < (EXPERTS > 0 ? EXPERTS : experts); ++expert) {
      float terms[PIECE];
      load_floats<T, PIECE>(terms, from + expert * expert_size);
#pragma unroll
      for (int image = 0; image < IMAGES; ++image) {
        const float share = room.shares[expert * IMAGES + image];
#pragma unroll
        for (int i = 0; i < PIECE; ++i) sums[image][i] = fmaf(share, terms[i], sums[image][i]);
      }
    }
  }
#pragma unroll
  for (int image = 0; image < IMAGES; ++image)
#pragma unroll
    for (int i = 0; i < PIECE; ++i)
      room.filters[image * TAPS * CHANNELS * ROWS + to[i] + shift] = from_float<T>(sums[image][i]);
}

// Mixes a thread's piece of a group of eight lines, from where the first of all lines begins.
template <int EXPERTS, typename T, int IMAGES, bool BACK>
DEVICE void mix_group(const Room<T, IMAGES>& room, const T* lines, const Extents& of, int rows,
                      const Pieces<BACK>& piece, int group) {
  const int pitch = (BACK ? of.outputs : of.channels) * TAPS, size = of.groups * of.outputs * of.channels * TAPS;
  const int line = group * 8 + threadIdx.x % 8;
  const bool exists = BACK ? piece.first < rows * TAPS : line < rows;
  mix_piece<EXPERTS>(room, lines + line * pitch + piece.first, exists, of.experts, size, piece.to,
                     group * Pieces<BACK>::STEP);
}

// Brings the pixels of CHANNELS channels, `count` of each from the first row of the band on, eight channels a vector.
template <typename T, int IMAGES>
DEVICE void keep_pixels(const Room<T, IMAGES>& room, const T* x, const Extents& of, const Place<IMAGES>& at,
                        int channel, int first_row, int count) {
  const int plane = of.view.height * of.view.width;
  for (int i = threadIdx.x; i < IMAGES * 2 * of.kept.by; i += THREADS) {
    const int part = of.kept.quotient(i), pixel = i - part * of.kept.by, image = at.image + part / 2;
    if (pixel >= count || image >= of.images) continue;
    const long long first =
        (static_cast<long long>(image) * of.groups + at.group) * of.channels + channel + part % 2 * HALF;
    const T* from = x + first * plane + first_row * of.view.width + pixel;
    Vector<T, HALF> values;
#pragma unroll
    for (int c = 0; c < HALF; c += 2) values.word[c / 2] = two(from[c * plane], from[(c + 1) * plane]);
    store_vector<T, HALF>(room.pixels + i * HALF, values);
  }
}

// What a position sees: where its window begins among the pixels kept, and which rows (bit a) and columns (bit 3 + b)
// of it are outside the image.
struct Window {
  int offset;
  unsigned outside;
};

DEVICE Window window_at(const View& view, int position, int positions, int first_row) {
  if (position >= positions) return {0, ~0u};
  const int y = view.columns.quotient(position), row = view.top + y;
  const int column = view.left + position - y * view.columns.by;
  unsigned outside = 0;
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    if (static_cast<unsigned>(row + i * view.down) >= static_cast<unsigned>(view.height)) outside |= 1u << i;
    if (static_cast<unsigned>(column + i * view.across) >= static_cast<unsigned>(view.width)) outside |= 8u << i;
  }
  return {(row - first_row) * view.width + column, outside};
}

template <typename T, int EXPERTS, int IMAGES, bool BACK>
DEVICE void convolve(const T* x, const T* weight, const T* bias, const T* attention, T* y, const Extents& of) {
  SHARED_MEMORY(T, shared);
  const View& view = of.view;
  const Room<T, IMAGES> room(shared, of.kept.by);
  const Place<IMAGES> at = Place<IMAGES>::at(blockIdx.x, of);
  for (int i = threadIdx.x; i < of.experts * IMAGES; i += THREADS) {
    const int image = at.image + i % IMAGES;
    room.shares[i] =
        image < of.images ? to_float(attention[static_cast<long long>(image) * of.experts + i / IMAGES]) : 0.0f;
  }
  if (threadIdx.x < HALF) room.zeros[threadIdx.x] = from_float<T>(0.0f);

  const int first_row = max(view.top + view.columns.quotient(at.column) + min(0, 2 * view.down), 0);
  const int count = max(0, min(of.band, view.height - first_row)) * view.width;

  // A warp has ROWS rows and 32 columns, a lane in turn each of two of them as a row of a matrix.
  constexpr int WARPS = THREADS / 32 / IMAGES;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, own = warp / WARPS, image = at.image + own;
  const int column = at.column + warp % WARPS * 32, pixels = image < of.images ? view.positions.by : 0;
  Window windows[2];
#pragma unroll
  for (int j = 0; j < 2; ++j)
    windows[j] = window_at(view, column + j * 16 + lane / 16 * 8 + lane % 8, pixels, first_row);
  const SharedAddress zeros = shared_address(room.zeros);
  const SharedAddress kept =
      shared_address(room.pixels + (own * 2 + lane / 8 % 2) * of.kept.by * HALF);
  const SharedAddress filters = shared_address(
      room.filters + ((own * TAPS * 2 + lane / 16) * ROWS + lane / 8 % 2 * 8 + lane % 8) * HALF);

  typedef Pieces<BACK> Own;
  const Own whole(threadIdx.x / 8), second(threadIdx.x / 8 + 32 * (Own::WHOLE - 1));
  const Own left(Own::WHOLE * 32 + threadIdx.x / 8 % Own::LEFT);
  const int left_group = threadIdx.x / (8 * Own::LEFT), rows = of.outputs - at.row;
  weight += BACK ? (at.group * of.channels * of.outputs + at.row) * TAPS
                 : (at.group * of.outputs + at.row) * of.channels * TAPS;

  float sums[2][4][4] = {};
  for (int channel = 0; channel < of.channels; channel += CHANNELS) {
    __syncthreads();  // The multiplications of the channels before are done.
    keep_pixels<T, IMAGES>(room, x, of, at, channel, first_row, count);
    const T* lines = weight + channel * (BACK ? of.outputs : 1) * TAPS;
#pragma unroll
    for (int group = 0; group < Own::GROUPS; ++group) {
      mix_group<EXPERTS>(room, lines, of, rows, whole, group);
      if (Own::WHOLE > 1) mix_group<EXPERTS>(room, lines, of, rows, second, group);
    }
    if (left_group < Own::GROUPS) mix_group<EXPERTS>(room, lines, of, rows, left, left_group);
    __syncthreads();
#pragma unroll
    for (int tap = 0; tap < TAPS; ++tap) {
      const int step = tap / 3 * view.down * view.width + tap % 3 * view.across;
      unsigned left[2][4];
#pragma unroll
      for (int i = 0; i < 2; ++i) load_matrices(left[i], filters + (tap * 2 * ROWS + i * 16) * 16);
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const bool outside = windows[j].outside & (1u << tap / 3 | 8u << tap % 3);
        unsigned right[4];
        load_matrices(right, outside ? zeros : kept + (windows[j].offset + step) * 16);
        const unsigned first[2] = {right[0], right[1]}, second[2] = {right[2], right[3]};
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          multiply_tiles<T>(sums[i][2 * j], left[i], first);
          multiply_tiles<T>(sums[i][2 * j + 1], left[i], second);
        }
      }
    }
  }

#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = at.row + i * 8 + lane / 4, output = at.group * of.outputs + row;
    if (row >= of.outputs) return;
    float offset = 0;
    if (bias)
#pragma unroll 1
      for (int expert = 0; expert < of.experts; ++expert)
        offset = fmaf(room.shares[expert * IMAGES + own],
                      to_float(bias[expert * of.groups * of.outputs + output]), offset);
    T* channel = y + (static_cast<long long>(image) * of.groups * of.outputs + output) * view.positions.by;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float values[2] = {sums[i / 2][j][i % 2 * 2] + offset, sums[i / 2][j][i % 2 * 2 + 1] + offset};
      const int position = column + j * 8 + lane % 4 * 2;
      if (view.positions.by % 2 == 0) {
        if (position < pixels) store_floats<T, 2>(channel + position, values);
      } else {
        if (position < pixels) channel[position] = from_float<T>(values[0]);
        if (position + 1 < pixels) channel[position + 1] = from_float<T>(values[1]);
      }
    }
  }
}

// Rows are outputs, columns positions, k taps of channels.
template <typename T, int EXPERTS, int IMAGES>
__global__ void __launch_bounds__(THREADS, 2) forward(const Forward p) {
  convolve<T, EXPERTS, IMAGES, false>(static_cast<const T*>(p.x), static_cast<const T*>(p.weight),
                                      static_cast<const T*>(p.bias), static_cast<const T*>(p.attention),
                                      static_cast<T*>(p.y), p.of);
}

// The same backwards: rows are the layer's channels, k taps of its outputs.
template <typename T, int EXPERTS, int IMAGES>
__global__ void __launch_bounds__(THREADS, 2) input_gradient(const InputGradient p) {
  convolve<T, EXPERTS, IMAGES, true>(static_cast<const T*>(p.x), static_cast<const T*>(p.weight),
                                     static_cast<const T*>(nullptr), static_cast<const T*>(p.attention),
                                     static_cast<T*>(p.y), p.of);
}
