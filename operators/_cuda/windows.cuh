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

// What a tap's number stands for.
struct Numbered {
  int channel, a, b;
};

DEVICE Numbered numbered(const View& view, int tap) {
  const int channel = view.taps.quotient(tap), rest = tap - channel * view.taps.by;
  const int a = view.taps_across.quotient(rest);
  return {channel, a, rest - a * view.taps_across.by};
}

template <bool FIRST, typename A, typename B>
struct Choice {
  typedef A Type;
};
template <typename A, typename B>
struct Choice<false, A, B> {
  typedef B Type;
};

// A row or column far outside any image. Images and windows are less than 2^15 high and wide.
constexpr int OUTSIDE = -(1 << 30);

// Where the window of a position begins: that of tap (0, 0).
template <typename T>
struct Corner {
  const T* origin;
  int row, column;
};

// What a tap adds to the window's corner; row and column share a word, as a table has 8 bytes for a tap.
struct Tap {
  int offset, step;

  DEVICE Tap at(int offset, int row, int column) { return {offset, row << 16 | (column & 0xffff)}; }
  DEVICE Tap none() { return at(0, -0x8000, 0); }
  MEMBER int row() const { return step >> 16; }
  MEMBER int column() const { return static_cast<short>(step); }
};

// Positions numbered over all images.
template <typename T>
DEVICE Corner<T> corner_of(const View& view, const T* images, long long image_size, int number) {
  const int image = view.positions.quotient(number), rest = number - image * view.positions.by;
  const int y = view.columns.quotient(rest), x = rest - y * view.columns.by;
  const int row = view.top + y * view.stride, column = view.left + x * view.stride;
  return {images + image * image_size + (row * view.width + column), row, column};
}

// What every tap of every position sees, in images of channels x height x width. ALONG_K: positions are k and lines
// are taps, as a weight gradient wants it; else lines are positions and k are taps.
template <typename T, bool ALONG_K_>
struct Windows {
  static constexpr bool ALONG_K = ALONG_K_, COPIED = false, TABLED = true;
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
    if constexpr (ALONG_K)
      return seen(depth, line);
    else
      return seen(line, depth);
  }

  MEMBER Corner<T> corner(int position) const {
    if (position >= positions) return {images, OUTSIDE, OUTSIDE};
    return corner_of(view, images, image_size, position);
  }
  MEMBER Tap tap(int number) const {
    if (number >= taps) return Tap::none();
    const Numbered at = numbered(view, number);
    const int row = at.a * view.down, column = at.b * view.across;
    return Tap::at((at.channel * view.height + row) * view.width + column, row, column);
  }

  MEMBER Vector<T, 1> seen(const Corner<T>& corner, const Tap& tap) const {
    const unsigned row = corner.row + tap.row(), column = corner.column + tap.column();
    const bool inside = row < static_cast<unsigned>(view.height) && column < static_cast<unsigned>(view.width);
    return inside ? load_vector<T, 1>(corner.origin + tap.offset) : zero_vector<T, 1>();
  }
};

// The same for kernels of at most 15 x 15 taps, lines being positions: whether a pixel lies inside the image is one
// instruction, as each position knows which rows and columns of its window do not.
template <typename T>
struct SmallWindows {
  static constexpr bool ALONG_K = false, COPIED = false, TABLED = true;
  static constexpr int VECTOR = 1;
  static constexpr unsigned NOTHING = 1u << 15;  // outside for every position
  struct Line {
    const T* origin;
    unsigned outside;  // bit a: row a of the window, bit 16 + b: column b
  };
  struct Depth {
    int offset;
    unsigned bits;  // of the tap's row and column
  };

  View view;
  const T* images;
  long long image_size;
  int positions, taps;
  int first;

  MEMBER Line line(int i) const {
    if (first + i >= positions) return {images, ~0u};
    const Corner<T> corner = corner_of(view, images, image_size, first + i);
    unsigned outside = NOTHING;
    const int rows = view.taps.by / view.taps_across.by;
    for (int a = 0; a < rows; ++a)
      if (static_cast<unsigned>(corner.row + a * view.down) >= static_cast<unsigned>(view.height)) outside |= 1u << a;
    for (int b = 0; b < view.taps_across.by; ++b)
      if (static_cast<unsigned>(corner.column + b * view.across) >= static_cast<unsigned>(view.width))
        outside |= 1u << (16 + b);
    return {corner.origin, outside};
  }
  MEMBER Depth depth(int k) const {
    if (k >= taps) return {0, NOTHING};
    const Numbered tap = numbered(view, k);
    return {(tap.channel * view.height + tap.a * view.down) * view.width + tap.b * view.across,
            1u << tap.a | 1u << (16 + tap.b)};
  }
  MEMBER Vector<T, 1> load(const Line& line, const Depth& depth) const {
    return line.outside & depth.bits ? zero_vector<T, 1>() : load_vector<T, 1>(line.origin + depth.offset);
  }
};

// Eight 16-bit pixels of a row, and the one beside them that comes in when they are shifted by -1 or 1.
struct Eight {
  Words<16> own;
  unsigned beside;
  int shift;
};

DEVICE Words<16> finished(const Eight& loaded) {
  const int shift = loaded.shift;
  // Each word of the result is one of these, or half of one and half of the next.
  unsigned words[5];
  words[0] = shift < 0 ? loaded.beside << 16 : loaded.own.word[0];
#pragma unroll
  for (int i = 1; i < 4; ++i) words[i] = shift < 0 ? loaded.own.word[i - 1] : loaded.own.word[i];
  words[4] = shift < 0 ? loaded.own.word[3] : loaded.beside;
  Words<16> result;
#pragma unroll
  for (int i = 0; i < 4; ++i) result.word[i] = __byte_perm(words[i], words[i + 1], shift ? 0x5432 : 0x3210);
  return result;
}

// The same in 16 bits at stride 1, for kernels three taps wide that keep the width, a multiple of 8: eight positions of
// a row are loaded at once, and one pixel beside them for a tap that is not in the middle.
template <typename T, bool ALONG_K_>
struct WindowsBeside {
  static constexpr bool ALONG_K = ALONG_K_, COPIED = false, TABLED = true;
  static constexpr int VECTOR = 8;
  static_assert(sizeof(T) == 2, "words of two values are shifted");
  typedef typename Choice<ALONG_K, Tap, Corner<T>>::Type Line;
  typedef typename Choice<ALONG_K, Corner<T>, Tap>::Type Depth;

  View view;
  const T* images;
  long long image_size;
  int positions, taps;
  int first;

  MEMBER Line line(int i) const {
    if constexpr (ALONG_K)
      return tap(first + i);
    else
      return middle(first + i);
  }
  MEMBER Depth depth(int k) const {
    if constexpr (ALONG_K)
      return middle(k);
    else
      return tap(k);
  }
  MEMBER Eight load(const Line& line, const Depth& depth) const {
    if constexpr (ALONG_K)
      return seen(depth, line);
    else
      return seen(line, depth);
  }

 private:
  // Where eight positions are in the row that the first row of taps sees.
  MEMBER Corner<T> middle(int position) const {
    if (position >= positions) return {images, OUTSIDE, 0};
    View centred = view;
    centred.left = 0;
    return corner_of(centred, images, image_size, position);
  }
  MEMBER Tap tap(int number) const {
    if (number >= taps) return Tap::none();
    const Numbered at = numbered(view, number);
    const int row = at.a * view.down;
    return Tap::at((at.channel * view.height + row) * view.width, row, view.left + at.b * view.across);
  }
  MEMBER Eight seen(const Corner<T>& middle, const Tap& tap) const {
    const int shift = tap.column(), beside_at = shift < 0 ? -1 : VECTOR;  // shift is -1, 0 or 1
    const bool inside = static_cast<unsigned>(middle.row + tap.row()) < static_cast<unsigned>(view.height);
    const bool has_beside =
        inside && shift && static_cast<unsigned>(middle.column + beside_at) < static_cast<unsigned>(view.width);
    const T* row = middle.origin + tap.offset;
    Vector<T, VECTOR> own = zero_vector<T, VECTOR>();
    unsigned beside = 0;
    if (inside) own = load_vector<T, VECTOR>(row);
    if (has_beside) beside = row[beside_at].bits;
    return {own, beside, shift};
  }
};

// Images of channels x positions as they lie in memory: what a kernel of one tap sees, and the gradient of an output.
// ALONG_K: positions are k and lines are channels; else lines are positions and k are channels. VECTOR must divide
// the positions of an image.
template <typename T, int VECTOR_, bool ALONG_K_>
struct Planes {
  static constexpr bool ALONG_K = ALONG_K_, COPIED = VECTOR_ * sizeof(T) >= 4 && (sizeof(T) == 2 || !ALONG_K);
  static constexpr int VECTOR = VECTOR_;
  typedef int Channel;         // offset in an image, -1 beyond the channels
  typedef long long Position;  // offset from the first image, -1 beyond the positions
  typedef typename Choice<ALONG_K, Channel, Position>::Type Line;
  typedef typename Choice<ALONG_K, Position, Channel>::Type Depth;

  Divisor plane;         // positions of an image
  const T* images;       // the first channel of the first image
  long long image_size;  // values from one image to the next
  int positions, channels;
  int first;             // line of the tile's first

  MEMBER Line line(int i) const {
    if constexpr (ALONG_K)
      return channel(first + i);
    else
      return position(first + i);
  }
  MEMBER Depth depth(int k) const {
    if constexpr (ALONG_K)
      return position(k);
    else
      return channel(k);
  }
  MEMBER Source<T> source(Line line, Depth depth) const {
    const bool valid = line >= 0 && depth >= 0;
    return {valid ? images + line + depth : images, valid};
  }
  MEMBER Vector<T, VECTOR> load(Line line, Depth depth) const {
    return line >= 0 && depth >= 0 ? load_vector<T, VECTOR>(images + line + depth) : zero_vector<T, VECTOR>();
  }

  MEMBER Channel channel(int number) const { return number < channels ? number * plane.by : -1; }
  MEMBER Position position(int number) const {
    if (number >= positions) return -1;
    const int image = plane.quotient(number);
    return image * image_size + (number - image * plane.by);
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
  typedef int Line;   // offset of a filter, -1 beyond the channels
  typedef int Depth;  // offset of an output's tap, -1 beyond the outputs

  const T* filters;
  int channels, size, width, every;  // size is height * width of a filter
  Reach rows, columns;
  Divisor taps_across, taps;  // those that reach, along a row and in all
  int depths;                 // outputs * taps
  int first;                  // channel of the tile's first line

  MEMBER Line line(int i) const {
    return first + i < channels ? (first + i) * size : -1;
  }
  MEMBER Depth depth(int k) const {
    if (k >= depths) return -1;
    const int output = taps.quotient(k), rest = k - output * taps.by;
    const int i = taps_across.quotient(rest), j = rest - i * taps_across.by;
    const int a = rows.first + i * every, b = columns.first + j * every;
    return output * channels * size + a * width + b;
  }
  MEMBER Vector<T, 1> load(Line filter, Depth tap) const {
    return (filter | tap) >= 0 ? load_vector<T, 1>(filters + filter + tap) : zero_vector<T, 1>();
  }
};
