// A program around one kernel, so that the address sanitizer sees every tensor as an allocation of its exact size:
// a launch and its tensors come in on standard input, the tensors go out on standard output.
#include <stdio.h>
#include <stdlib.h>

#include <vector>

#include "on_cpu.hpp"

extern "C" int on_cpu_entry(on_cpu::Request* request);

namespace {

void take(void* to, size_t bytes) {
  if (fread(to, 1, bytes, stdin) != bytes) exit(3);
}

}  // namespace

int main() {
  on_cpu::Request request = {};
  unsigned long long numbers[4], order;
  take(request.grid, sizeof request.grid);
  take(request.block, sizeof request.block);
  take(numbers, sizeof numbers);
  take(&order, sizeof order);
  request.shared_bytes = numbers[0];
  request.argument_bytes = numbers[1];
  request.order = static_cast<unsigned>(order);
  char* argument = static_cast<char*>(aligned_alloc(16, (numbers[1] + 15) / 16 * 16));
  take(argument, numbers[1]);
  std::vector<long long> tensors(numbers[2]);
  take(tensors.data(), 8 * tensors.size());
  std::vector<unsigned long long> sizes(numbers[3]);
  take(sizes.data(), 8 * sizes.size());
  std::vector<char*> buffers;
  for (const unsigned long long size : sizes) {
    // 64 bytes aligned, as PyTorch's are at least; the sanitizer guards the end to the byte.
    void* buffer = nullptr;
    if (posix_memalign(&buffer, 64, size)) exit(3);
    buffers.push_back(static_cast<char*>(buffer));
    take(buffer, size);
  }
  for (size_t i = 0; i < tensors.size(); ++i) {
    char* pointer = tensors[i] < 0 ? nullptr : buffers[static_cast<size_t>(tensors[i])];
    memcpy(argument + 8 * i, &pointer, 8);
  }
  request.argument = argument;
  if (const int status = on_cpu_entry(&request)) {
    fprintf(stderr, status == 2 ? "its struct has another size than the launch gives" : "%s", request.message);
    return status;
  }
  for (size_t i = 0; i < sizes.size(); ++i) fwrite(buffers[i], 1, sizes[i], stdout);
  return 0;
}
