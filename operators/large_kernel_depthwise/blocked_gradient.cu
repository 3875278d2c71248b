// Gradient of the filter of a depthwise convolution of stride 1 in float32 with more than seven taps per side, without
// atomics.
//
// A warp has ROWS rows x 8 taps of the filter, as many sums in each lane's registers. A lane walks down four columns of
// the image, a few rows at a time: every row of the image meets the last ROWS rows of the gradient, kept in registers.
// At the end lanes and warps are added up in order. What a block finds in its share of the images is one of `splits`
// parts, which sum_parts adds in order.
//
// Predicted bounds on an H200, clocks of an SM per pixel where memory takes 0.49: 13x13 on 28x28 2, 31x31 on
// 56x56 9.5 (issue; 85 to 90 % of the main loop are multiply-adds). Not measured.
#include "stacks.cuh"

struct BlockedGradient {
  const float* gradient;  // [N, C, H, W]
  const float* x;         // [N, C, H, W]
  float* parts;           // [splits, C, K * K, and one more where there is a bias]
  int batch, channels, height, width, kernel, with_bias, access;
  int images, rows, held, row_tiles, column_tiles, columns, stride;  // of a unit: what a block holds at a time
  int units, splits, patches;                                        // patches: of the filter, a block's
};

constexpr int SEGMENT = 7;  // rows that a lane walks at a time

// Seven rows of sums are worth more registers than a second block.
template <int ROWS>
__global__ void __launch_bounds__(ROWS == 7 ? 128 : 256, ROWS == 7 ? 3 : 2)
    weight_parts_blocked(const BlockedGradient p) {
  const int padding = p.kernel / 2, shift = (4 - padding % 4) % 4, square = p.kernel * p.kernel;
  const int across = (p.kernel + shift + 7) / 8, down = (p.kernel + ROWS - 1) / ROWS;
  const int parcels = (across * down + p.patches - 1) / p.patches, parcel = blockIdx.x % parcels;
  const int channel = blockIdx.x / parcels % p.channels, split = blockIdx.x / parcels / p.channels;
  const int plane = p.height * p.width;
  const long long image_size = static_cast<long long>(p.channels) * plane;
  SHARED_MEMORY(float, zeros);
  float* planes = zeros + p.stride;
  float* gradients = planes + p.images * p.held * p.stride;

  // The warps of a patch share the columns among them.
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, sharing = blockDim.x / 32 / p.patches;
  const int patch = parcel * p.patches + warp / sharing, member = warp % sharing;
  const int first_row = patch / across * ROWS, first_tap = patch % across * 8;
  const bool sums_bias = p.with_bias && patch == 0;
  float sums[ROWS][8], bias = 0;
#pragma unroll
  for (int i = 0; i < ROWS; ++i)
#pragma unroll
    for (int tap = 0; tap < 8; ++tap) sums[i][tap] = 0;

  for (int unit = split; unit < p.units; unit += p.splits) {
    const Share share = share_of(unit, p.column_tiles, p.row_tiles, 1);
    const int first_image = share.group * p.images, existing = min(p.images, p.batch - first_image);
    const int top = share.row_tile * p.rows, rows = min(p.rows, p.height - top);
    const int first_column = share.column_tile * p.columns, columns = min(p.columns, p.width - first_column);
    const int first_held = max(0, top - padding), end = min(p.height, first_held + p.held);
    const long long start = first_image * image_size + static_cast<long long>(channel) * plane;
    __syncthreads();  // The unit before is no longer needed.
    clear(zeros, (1 + p.images * p.held) * p.stride + p.images * p.rows * p.columns);
    __syncthreads();
    copy_stack(planes, {first_held, p.held, first_column - padding - shift, p.stride, p.stride}, p.x + start,
               image_size, existing, p.height, p.width, p.access);
    copy_stack(gradients, {top, p.rows, first_column, p.columns, p.columns}, p.gradient + start, image_size, existing,
               p.height, p.width, p.access);
    commit_copies();
    wait_for_copies<0>();
    __syncthreads();
    if (sums_bias)
      for (int i = member * 32 + lane; i < existing * p.rows * p.columns; i += sharing * 32) bias += gradients[i];
    if (first_row >= p.kernel) continue;

    const int quads = (columns + 3) / 4, segments = (rows + SEGMENT - 1) / SEGMENT;
    for (int walk = member * 32 + lane; walk < existing * segments * quads; walk += sharing * 32) {
      const int image = walk / (segments * quads), rest = walk - image * (segments * quads);
      const int row = rest / quads * SEGMENT, column = (rest - rest / quads * quads) * 4;
      const float* gradient = gradients + (image * p.rows + row) * p.columns + column;
      // Under the first row of the patch; the row after it is met one step later.
      const int seen = top + row - padding + first_row;
      const float* under = planes + (image * p.held + seen - first_held) * p.stride + column + first_tap;
      float last[ROWS][4];
#pragma unroll
      for (int step = 0; step < SEGMENT + ROWS - 1; ++step) {
        if (step < SEGMENT) load_floats(last[step % ROWS], row + step < rows ? gradient + step * p.columns : zeros);
        const bool exists = static_cast<unsigned>(seen + step) < static_cast<unsigned>(end);
        const float* from = exists ? under + step * p.stride : zeros;
        float x[12];
        load_floats(x, from);
#pragma unroll
        for (int i = 0; i < ROWS; ++i)
          // Row first_row + i of the filter sees this row of the image from the gradient's row `step - i`.
          if (step >= i && step - i < SEGMENT)
#pragma unroll
            for (int tap = 0; tap < 8; ++tap)
#pragma unroll
              for (int j = 0; j < 4; ++j) sums[i][tap] = fmaf(last[(step - i) % ROWS][j], x[j + tap], sums[i][tap]);
      }
    }
  }

  float* part = p.parts + (static_cast<long long>(split) * p.channels + channel) * (square + p.with_bias);
  constexpr int COUNT = ROWS * 8;
  float* totals = zeros + warp * (COUNT + 1);
  __syncthreads();
#pragma unroll
  for (int i = 0; i < ROWS; ++i)
#pragma unroll
    for (int tap = 0; tap < 8; ++tap) {
      const float total = warp_sum(sums[i][tap]);
      if (lane == 0) totals[i * 8 + tap] = total;
    }
  bias = warp_sum(bias);
  if (lane == 0) totals[COUNT] = bias;
  __syncthreads();
  if (member) return;
  for (int i = lane; i <= COUNT; i += 32) {
    float total = 0;
    for (int other = 0; other < sharing; ++other) total += totals[other * (COUNT + 1) + i];
    const int row = first_row + i / 8, tap = first_tap + i % 8 - shift;
    if (i == COUNT) {
      if (sums_bias) part[square] = total;
    } else if (row < p.kernel && tap >= 0 && tap < p.kernel) {
      part[row * p.kernel + tap] = total;
    }
  }
}
