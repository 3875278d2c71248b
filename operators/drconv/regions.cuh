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

// Regions are cut into shares of at most MOST pixels, numbered region by region.
template <int MOST>
DEVICE Share share_of(const Regions& image, int number, int regions) {
  for (int region = 0, begin = 0; region < regions; ++region) {
    const int end = image.begins[region + 1], shares = (end - begin + MOST - 1) / MOST;
    if (number < shares) {
      const int first = begin + number * MOST;
      return {image.by_region + first, region, min(end - first, MOST)};
    }
    number -= shares;
    begin = end;
  }
  return {nullptr, 0, 0};
}
