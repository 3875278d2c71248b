// The windows of a convolution as an operand of gemm.cuh: which pixel an output sees through which tap, worked out
// while loading, so that the matrix of windows never exists. A view goes either way: the forward looks from outputs
// into the input, the input's gradient from pixels into the output's gradient.
#pragma once

#include "gemm.cuh"

// Division of n in 0..2^31 - 1 by a number known beforehand: one multiplication and a shift. opbench.cuda.divisor
// gives its three integers.
struct Divisor {
  int by;
  unsigned multiplier;
  int shift;

  DEVICE Divisor of(int by) {
    const int shift = 31 + 32 - __clz(by - 1);
    return {by, static_cast<unsigned>((1ull << shift) / by + 1), shift};
  }
  MEMBER int quotient(int n) const {
    return static_cast<int>(static_cast<unsigned long long>(static_cast<unsigned>(n)) * multiplier >> shift);
  }
};

// Position (y, x) of a grid sees through tap (a, b) the pixel (top + y * stride + a * down, left + x * stride +
// b * across) of an image of height x width, and 0 outside. Pixels are numbered over all images, y-major within one;
// taps over all channels, a-major within one. Forward: down = across = dilation; backward they are negative.
struct View {
  int height, width, stride, top, left, down, across;
  Divisor columns, positions;     // of the grid: extent along x, and positions in all
  Divisor taps_across, taps;      // of the kernel: along b, and in all
};

template <bool FIRST, typename A, typename B>
struct Choice {
  typedef A Type;
};
template <typename A, typename B>
struct Choice<false, A, B> {
  typedef B Type;
};

// Far outside any image, and so that two of them still fit an int.
constexpr int OUTSIDE = -(1 << 30);

// Where the window of a position begins: that of tap (0, 0).
template <typename T>
struct Corner {
  const T* origin;
  int row, column;
};

// What a tap adds to the window's corner.
struct Tap {
  int offset, row, column;
};

// What every tap of every position sees, in images of channels x height x width. ALONG_K: positions are k and lines
// are taps, as a weight gradient wants it; else lines are positions and k are taps.
template <typename T, bool ALONG_K_>
struct Windows {
  static constexpr bool ALONG_K = ALONG_K_, COPIED = false;
  static constexpr int VECTOR = 1;
  typedef typename Choice<ALONG_K, Tap, Corner<T>>::Type Line;
  typedef typename Choice<ALONG_K, Corner<T>, Tap>::Type Depth;

  View view;
  const T* images;        // the first channel of the first image
  long long image_size;   // values from one image to the next
  int positions, taps;    // in all: positions of all images, taps of all channels
  int first;              // line of the tile's first

  MEMBER Line line(int i) const {
    if constexpr (ALONG_K)
      return tap(first + i);
    else
      return corner(first + i);
  }
  MEMBER Depth depth(int k) const {
    if constexpr (ALONG_K)
      return corner(k);
    else
      return tap(k);
  }
  MEMBER Vector<T, 1> load(const Line& line, const Depth& depth) const {
    const int row = line.row + depth.row, column = line.column + depth.column;
    const bool inside = static_cast<unsigned>(row) < static_cast<unsigned>(view.height) &&
                        static_cast<unsigned>(column) < static_cast<unsigned>(view.width);
    if (!inside) return zero_vector<T, 1>();
    if constexpr (ALONG_K)
      return load_vector<T, 1>(depth.origin + line.offset);
    else
      return load_vector<T, 1>(line.origin + depth.offset);
  }

  MEMBER Corner<T> corner(int position) const {
    if (position >= positions) return {images, OUTSIDE, OUTSIDE};
    const int image = view.positions.quotient(position), rest = position - image * view.positions.by;
    const int y = view.columns.quotient(rest), x = rest - y * view.columns.by;
    const int row = view.top + y * view.stride, column = view.left + x * view.stride;
    return {images + image * image_size + (row * view.width + column), row, column};
  }
  MEMBER Tap tap(int number) const {
    if (number >= taps) return {0, OUTSIDE, OUTSIDE};
    const int channel = view.taps.quotient(number), rest = number - channel * view.taps.by;
    const int a = view.taps_across.quotient(rest), b = rest - a * view.taps_across.by;
    const int row = a * view.down, column = b * view.across;
    return {(channel * view.height + row) * view.width + column, row, column};
  }
};

// Images of channels x positions as they lie in memory: what a kernel of one tap sees, and the gradient of an output.
// ALONG_K: positions are k and lines are channels; else lines are positions and k are channels. VECTOR must divide
// the positions of an image.
template <typename T, int VECTOR_, bool ALONG_K_>
struct Planes {
  static constexpr bool ALONG_K = ALONG_K_, COPIED = VECTOR_ * sizeof(T) >= 4 && (sizeof(T) == 2 || !ALONG_K);
  static constexpr int VECTOR = VECTOR_;
  struct Place {
    long long offset;
    bool valid;
  };
  typedef Place Line;
  typedef Place Depth;

  Divisor plane;         // positions of an image
  const T* images;       // the first channel of the first image
  long long image_size;  // values from one image to the next
  int positions, channels;
  int first;             // line of the tile's first

  MEMBER Line line(int i) const { return ALONG_K ? channel(first + i) : position(first + i); }
  MEMBER Depth depth(int k) const { return ALONG_K ? position(k) : channel(k); }
  MEMBER Source<T> source(const Line& line, const Depth& depth) const {
    return {images + line.offset + depth.offset, line.valid && depth.valid};
  }
  MEMBER Vector<T, VECTOR> load(const Line& line, const Depth& depth) const {
    const Source<T> from = source(line, depth);
    return from.valid ? load_vector<T, VECTOR>(from.address) : zero_vector<T, VECTOR>();
  }

  MEMBER Place channel(int number) const {
    return {number < channels ? static_cast<long long>(number) * plane.by : 0, number < channels};
  }
  MEMBER Place position(int number) const {
    if (number >= positions) return {0, false};
    const int image = plane.quotient(number);
    return {image * image_size + (number - image * plane.by), true};
  }
};

// Back along one axis: the taps through which the pixels residue, residue + stride, ... are seen are first, first +
// every, ...; the pixel numbered i of these is seen through the j-th such tap by position from + i + j * step.
struct Reach {
  int first, taps, from, step;
};

// `every` is stride / gcd(stride, dilation): after so many taps the same pixels are met again.
DEVICE Reach reach(int residue, int kernel, int stride, int padding, int dilation, int every) {
  for (int first = 0; first < min(every, kernel); ++first) {
    const int distance = residue + padding - first * dilation;
    if (distance % stride == 0)
      return {first, (kernel - first + every - 1) / every, distance / stride, -every * dilation / stride};
  }
  return {0, 0, 0, 0};
}

// A stack of filters [outputs, channels, height, width] as the gradient of an input multiplies it: lines are channels,
// k goes over outputs and, within one, over the taps that reach the pixels at hand.
template <typename T>
struct ReachingFilters {
  static constexpr bool ALONG_K = true, COPIED = false;
  static constexpr int VECTOR = 1;
  struct Line {
    const T* filter;
    bool valid;
  };
  typedef int Depth;  // offset in a stack, -1 beyond it

  const T* filters;
  int channels, size, width, every;  // size is height * width of a filter
  Reach rows, columns;
  Divisor taps_across, taps;  // those that reach, along a row and in all
  int depth_end;              // outputs * taps
  int first;                  // channel of the tile's first line

  MEMBER Line line(int i) const {
    const int channel = first + i;
    return {filters + channel * size, channel < channels};
  }
  MEMBER Depth depth(int k) const {
    if (k >= depth_end) return -1;
    const int output = taps.quotient(k), rest = k - output * taps.by;
    const int i = taps_across.quotient(rest), j = rest - i * taps_across.by;
    const int a = rows.first + i * every, b = columns.first + j * every;
    return output * channels * size + a * width + b;
  }
  MEMBER Vector<T, 1> load(const Line& line, Depth offset) const {
    return line.valid && offset >= 0 ? load_vector<T, 1>(line.filter + offset) : zero_vector<T, 1>();
  }
};
