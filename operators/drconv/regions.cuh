// Which region each pixel of an image belongs to, and the pixels of each region.
#pragma once

#include "device.cuh"

// What is kept of one image: the region of each pixel, the pixels by region, each region's in ascending order, and
// where among these each region begins.
struct Regions {
  const int* of_pixel;  // [pixels]
  const int* by_region; // [pixels]
  const int* begins;    // [regions + 1]

  DEVICE int size(int pixels, int regions) { return 2 * pixels + regions + 1; }
  DEVICE Regions of_image(const int* places, int image, int pixels, int regions) {
    const int* of_pixel = places + static_cast<long long>(image) * size(pixels, regions);
    return {of_pixel, of_pixel + pixels, of_pixel + 2 * pixels};
  }
};

// Some pixels of one region: what a block works on.
struct Share {
  const int* pixels;
  int region, count;  // count is 0 where all regions end before this share
};

// Regions are cut into shares of at most MOST pixels, numbered region by region. Each lane of a warp, all of which ask
// for the same share, looks at one region.
template <int MOST>
DEVICE Share share_of(const Regions& image, int number, int regions) {
  const unsigned all = 0xffffffffu;
  const int lane = threadIdx.x % 32;
  for (int first = 0; first < regions; first += 32) {
    const int region = first + lane;
    const int begin = region < regions ? image.begins[region] : 0;
    const int count = region < regions ? image.begins[region + 1] - begin : 0;
    const int shares = (count + MOST - 1) / MOST;
    int end = shares;  // of the region's shares among those of these 32
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      const int before = __shfl_up_sync(all, end, distance);
      if (lane >= distance) end += before;
    }
    const unsigned beyond = __ballot_sync(all, number < end);
    if (beyond) {
      const int found = __ffs(beyond) - 1, skipped = (number - __shfl_sync(all, end - shares, found)) * MOST;
      const int pixels = __shfl_sync(all, count, found) - skipped;
      return {image.by_region + __shfl_sync(all, begin, found) + skipped, first + found, min(pixels, MOST)};
    }
    number -= __shfl_sync(all, end, 31);
  }
  return {nullptr, 0, 0};
}
