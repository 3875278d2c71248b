// Depthwise convolution of stride 1 in 16 bits, on tensor cores; with the filter turned, the input's gradient.
//
// One row a of a filter makes rows of outputs out of rows of the image as a matrix product:
//
//   Y[16 rows x 8 columns] += X[those rows moved by a - padding, 8 * BANDS columns] * W[8 * BANDS x 8],
//   W[k][n] = weight[a][k - n - offset], zero where there is no such tap: a band.
//
// Rows of X may be any 16 rows, so images of one channel are stacked and 7 or 14 rows waste nothing; between images lie
// as many rows of zeros as a filter reaches beyond one. Columns begin at multiples of 8 whatever the padding, as
// 16-byte accesses need: the band's offset makes up for it. The filter is kept twice, moved by one value against each
// other, so that every pair of neighbours is one aligned word. Columns outside the image are not multiplied where a
// block has whole rows.
//
// Predicted bounds on an H200, clocks of an SM per output where memory takes 0.24: 7x7 on 56x56 0.24 (memory; tensor
// cores 0.17, issue 0.12), on 14x14 0.28 (issue), 13x13 on 28x28 0.32 (tensor cores), on 7x7 0.42 (issue), 27x27 on
// 14x14 0.56 (issue, tensor cores), 31x31 on 56x56 1.12 (tensor cores). Not measured.
#include "bands.cuh"

struct Banded {
  const void* x;       // [N, C, H, W]
  const void* weight;  // [C, 1, K, K]
  const void* bias;    // [C] or null
  void* y;             // [N, C, H, W]
  int batch, channels, height, width, kernel, turned, access;
  // A unit is `rows` rows of one channel in `images` images, 16 of these a warp. A block takes every `splits`-th of a
  // channel's, and fills one buffer of `held` rows while it works on what another holds.
  int images, rows, held, row_tiles, column_tiles, units, splits;
};

// Lays out `rows` rows of a filter, each twice with zeros on both sides: tap b at 8 + offset + b, and one place before
// that. Rows that the filter has not are zeros.
template <typename T, int SPAN>
DEVICE void lay_out_filter(T* to, const T* weight, int kernel, int rows, int offset, bool turned) {
  const int square = kernel * kernel;
#pragma unroll 1
  for (int i = threadIdx.x; i < rows * 2 * SPAN; i += blockDim.x) {
    const int row = i / (2 * SPAN), tap = i % SPAN + i / SPAN % 2 - 8 - offset, index = row * kernel + tap;
    T value = from_float<T>(0.f);
    if (row < kernel && tap >= 0 && tap < kernel) value = weight[turned ? square - 1 - index : index];
    to[i] = value;
  }
}

// Stores `columns[c]` values of image c, each row two lanes' again; the rows of outputs SHARED values apart.
template <typename T, int BYTES, int COLUMNS, int SHARED, int STACKS>
DEVICE void store_rows(T* to, const T* from, const Apart& apart, const int (&columns)[STACKS]) {
  constexpr int COUNT = BYTES / static_cast<int>(sizeof(T));
#pragma unroll
  for (int c = 0; c < STACKS; ++c, to += apart.image)
#pragma unroll(BYTES == 2 ? 4 : COLUMNS)
    for (int column = 0; column < COLUMNS; column += 2 * COUNT) {
      // Read whether stored or not: a condition would make the compiler compute each address anew.
      const Vector<T, COUNT> values = load_vector<T, COUNT>(from + c * SHARED + column);
      if (column < columns[c]) store_vector<T, COUNT>(to + column, values);
    }
}

// Adds what a row of taps, or of a single step two rows, make of 16 rows of the image, STEPS steps of 8 columns.
template <typename T, int BANDS, int TILES, int STEPS, int LEAD, int COUNT>
DEVICE void multiply_row(float (&sums)[TILES][4], SharedAddress from, const unsigned (&w)[COUNT]) {
  unsigned x[(STEPS + 1) / 2][4];
  if constexpr (STEPS == 1) {
    load_matrices(x[0], from);
    multiply_tiles<T>(sums[0], x[0], w);
    return;
  }
#pragma unroll
  for (int s = 0; s + 1 < STEPS; s += 2) load_matrices(x[s / 2], from + s * 16);
  if constexpr (STEPS % 2) {
    unsigned last[2];
    load_matrices(last, from + (STEPS - 1) * 16);
    x[STEPS / 2][0] = last[0], x[STEPS / 2][1] = last[1];
  }
#pragma unroll
  for (int t = 0; t < TILES; ++t)
#pragma unroll
    for (int s = 0; s < STEPS; s += 2) {
      const int j = s + LEAD - t;
      const bool one = j >= 0 && j < BANDS, other = s + 1 < STEPS && j + 1 >= 0 && j + 1 < BANDS;
      if (one && other) {
        const unsigned both[2] = {w[j], w[j + 1]};
        multiply_tiles<T>(sums[t], x[s / 2], both);
      } else if (one || other) {
        const int which = one ? 0 : 1;
        const unsigned some[2] = {x[s / 2][2 * which], x[s / 2][2 * which + 1]}, single[1] = {w[j + which]};
        multiply_tiles<T>(sums[t], some, single);
      }
    }
}

// BANDS: 8-column steps that 8 columns of outputs see, 2 * ceil(padding / 8) + 1, or as many of them as can be in the
// image. TILES: 8-column steps of a block. ALL: that is the image's whole width.
template <typename T, int BANDS, int TILES, bool ALL>
__global__ void __launch_bounds__(256, TILES < 7 ? 3 : 2) convolve_banded(const Banded p) {
  // Of what the columns of outputs see, the steps that are held, and how many there are before them.
  constexpr int STEPS = ALL ? TILES : TILES + BANDS - 1, LEAD = ALL ? BANDS / 2 : 0, SPAN = 8 * BANDS + 8;
  // Of a single step, two rows of the filter make one product.
  constexpr bool PAIRED = STEPS == 1;
  // A warp has 16 rows of so many stacks: with few columns more rows are worth what the other instructions cost.
  constexpr int STACKS = !ALL || TILES > 2 ? 1 : TILES == 2 ? 2 : 4;
  // Odd multiples of 16 bytes: eight rows are then in eight different groups of banks.
  constexpr int STRIDE = 8 * (STEPS | 1), OUTPUT_STRIDE = 8 * (TILES | 1);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, half = lane / 16;
  const int padding = p.kernel / 2, tap_rows = p.kernel + PAIRED;
  // Rows from an image to the next: images share the zeros between them, tiles have pixels above and below.
  const int pitch = p.rows + (p.row_tiles > 1 ? 2 : 1) * padding + PAIRED;
  const int left = 8 * (BANDS / 2), offset = left - padding;
  SHARED_MEMORY(T, filter);
  T* outputs = filter + tap_rows * 2 * SPAN;
  T* planes = outputs + blockDim.x / 2 * STACKS * OUTPUT_STRIDE;

  const int channel = blockIdx.x % p.channels, split = blockIdx.x / p.channels;
  const long long image_size = static_cast<long long>(p.channels) * (p.height * p.width);
  const long long start = static_cast<long long>(channel) * (p.height * p.width);
  clear(planes, (split + p.splits < p.units ? 2 : 1) * p.held * STRIDE);
  const T* weight = static_cast<const T*>(p.weight) + static_cast<long long>(channel) * (p.kernel * p.kernel);
  lay_out_filter<T, SPAN>(filter, weight, p.kernel, tap_rows, offset, p.turned);
  const float bias = p.bias ? to_float(static_cast<const T*>(p.bias)[channel]) : 0.f;

  // Of the band, lane l holds the pair at rows k and k + 1, k = 2 * (l % 4), of column n = l / 4.
  const int pair = 8 + 2 * (lane % 4) - lane / 4, copy = pair % 2;
  const unsigned* band = reinterpret_cast<const unsigned*>(filter + copy * SPAN + pair - copy);

  // Where the block's first unit is, and in it the row that two lanes have.
  const bool is_whole = p.row_tiles * p.column_tiles == 1;
  const Share share = is_whole ? Share{0, 0, 0, split} : share_of(split, p.column_tiles, p.row_tiles, 1);
  const int number = warp * 16 + lane % 16, place = p.images > 1 ? number / p.rows : 0, row = number - place * p.rows;
  const int top = share.row_tile * p.rows, first_column = share.column_tile * 8 * TILES;
  const int vector = half * (p.access / static_cast<int>(sizeof(T)));
  const bool is_row = place < p.images && row < p.rows;
  int image = share.group * STACKS * p.images + place;
  const Apart apart = {p.images * image_size, p.images * pitch * STRIDE};
  const long long advance = p.splits * STACKS * apart.image;
  // Of a stack, a thread copies the row that it has the outputs of; of a tile, also some above and below.
  const int first_held = first_column - (ALL ? 0 : left), begin = max(0, first_held), first_row = max(0, top - padding);
  const int end = place < p.images ? min(p.height, top + p.rows + padding) : 0;
  const int seen = p.width - begin - vector, room = 8 * STEPS - (begin - first_held) - vector;
  const T* from = static_cast<const T*>(p.x) + start + image * image_size;
  from += (first_row + row) * p.width + begin + vector;
  T* to = planes + (place * pitch + first_row + row - (top - padding)) * STRIDE + begin - first_held + vector;
  // Outputs pass through shared memory, so that a row leaves in wide stores.
  T* y = static_cast<T*>(p.y) + start + image * image_size + (top + row) * p.width + first_column + vector;
  T* output = outputs + warp * (16 * STACKS * OUTPUT_STRIDE);
  const int columns = is_row && top + row < p.height ? p.width - first_column - vector : 0;

  const int first_tap = max(0, padding - (top + p.rows - 1)), last_tap = min(p.kernel, padding + p.height - top);
  const int held = (is_row ? place * pitch + row : 0) + first_tap + (PAIRED ? half : 0);
  const SharedAddress seen_from = shared_address(planes + held * STRIDE + (PAIRED ? 0 : half * 8));
  int buffer = 0;
#pragma unroll 1
  for (int next = split;; next += p.splits) {
    wait_for_copies<0>();
    __syncthreads();  // The unit is there, and the one before no longer needed.
    if (next < p.units) {
      bool exists[STACKS];
#pragma unroll
      for (int c = 0; c < STACKS; ++c) exists[c] = image + c * p.images < p.batch;
      const T* source = from;
      T* target = to + buffer;
#pragma unroll 1
      for (int line = first_row + row; line < end; line += blockDim.x / 2) {
        if (p.access == 16)
          copy_rows<T, 16, 8 * STEPS>(target, source, apart, exists, seen, room);
        else if (p.access == 8)
          copy_rows<T, 8, 8 * STEPS>(target, source, apart, exists, seen, room);
        else if (p.access == 4)
          copy_rows<T, 4, 8 * STEPS>(target, source, apart, exists, seen, room);
        else
          copy_rows<T, 2, 8 * STEPS>(target, source, apart, exists, seen, room);
        source += blockDim.x / 2 * p.width, target += blockDim.x / 2 * STRIDE;
      }
    }
    commit_copies();
    from += advance;
    image += p.splits * STACKS * p.images;
    buffer = p.held * STRIDE - buffer;
    if (next == split) continue;

    SharedAddress address = seen_from + buffer * static_cast<int>(sizeof(T));
    const unsigned* taps = band + first_tap * SPAN;
    float sums[STACKS][TILES][4];
#pragma unroll
    for (int c = 0; c < STACKS; ++c)
#pragma unroll
      for (int t = 0; t < TILES; ++t)
#pragma unroll
        for (int e = 0; e < 4; ++e) sums[c][t][e] = bias;
    int a = first_tap;
#pragma unroll 1
    do {
      unsigned w[PAIRED ? 2 : BANDS];
#pragma unroll
      for (int j = 0; j < (PAIRED ? 2 : BANDS); ++j) w[j] = taps[PAIRED ? j * SPAN : 4 * j];
      SharedAddress from = address;
#pragma unroll
      for (int c = 0; c < STACKS; ++c, from += apart.held * static_cast<int>(sizeof(T)))
        multiply_row<T, BANDS, TILES, STEPS, LEAD>(sums[c], from, w);
      address += (1 + PAIRED) * STRIDE * static_cast<int>(sizeof(T));
      taps += (1 + PAIRED) * SPAN;
    } while ((a += 1 + PAIRED) < last_tap);

#pragma unroll
    for (int c = 0; c < STACKS; ++c)
#pragma unroll
      for (int t = 0; t < TILES; ++t)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          T* place = output + (16 * c + lane / 4 + 8 * h) * OUTPUT_STRIDE + 8 * t + 2 * (lane % 4);
          store_floats<T, 2>(place, {sums[c][t][2 * h], sums[c][t][2 * h + 1]});
        }
    __syncwarp();
    int existing[STACKS];
#pragma unroll
    for (int c = 0; c < STACKS; ++c)
      existing[c] = image + (c - 2 * p.splits * STACKS) * p.images < p.batch ? columns : 0;
    const T* finished = output + lane % 16 * OUTPUT_STRIDE + vector;
    if (p.access == 16)
      store_rows<T, 16, 8 * TILES, 16 * OUTPUT_STRIDE>(y, finished, apart, existing);
    else if (p.access == 8)
      store_rows<T, 8, 8 * TILES, 16 * OUTPUT_STRIDE>(y, finished, apart, existing);
    else if (p.access == 4)
      store_rows<T, 4, 8 * TILES, 16 * OUTPUT_STRIDE>(y, finished, apart, existing);
    else
      store_rows<T, 2, 8 * TILES, 16 * OUTPUT_STRIDE>(y, finished, apart, existing);
    y += advance;
    if (next >= p.units) break;
  }
}
