// Calls kernels as a test recorded them, on this processor, and compares what they leave with what they left there.
//
// driver LIBRARY RECORDS REAL: the kernels, compiled; the calls; `float` or `double`, the type of numbers in arguments.
// A record: the kernel's name [32 bytes]; arrays, int64; of each its type ('f', 'd', 'l' or 'B', as int64), its bytes,
// int64, its content before and after; arguments, int64; of each 'p', an array and an offset into it, 'l' and a
// number, 'r' and a number, or '0', a null pointer: int64s, but float64 after 'r'. Everything is little-endian.
// It prints a line a kind of kernel: its name, its calls, and its largest difference from what was recorded, over the
// largest number of that array. Whole numbers have to be equal.
#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

static FILE *records;

static void fail(const std::string &why) {
  std::fprintf(stderr, "%s\n", why.c_str());
  std::exit(1);
}

template <typename Number> static Number read() {
  Number value;
  if (std::fread(&value, sizeof value, 1, records) != 1) fail("the records end early");
  return value;
}

struct Array {
  char type;
  int64_t bytes;
  char *now, *after;
};

// As vectors want it; and a kernel that writes past the end of an array would change what is compared.
static char *loaded(int64_t bytes) {
  char *content = static_cast<char *>(std::aligned_alloc(64, (bytes + 127) / 64 * 64));
  if (!content || std::fread(content, 1, bytes, records) != static_cast<size_t>(bytes)) fail("the records end early");
  return content;
}

template <typename Number> static double difference(const Array &array) {
  const Number *now = reinterpret_cast<const Number *>(array.now), *after = reinterpret_cast<const Number *>(array.after);
  double most = 0, largest = 0;
  for (int64_t k = 0; k < array.bytes / static_cast<int64_t>(sizeof(Number)); ++k) {
    const double a = static_cast<double>(now[k]), b = static_cast<double>(after[k]);
    if (std::isnan(a) != std::isnan(b) || std::isinf(a) != std::isinf(b) || (std::isinf(a) && a != b)) return INFINITY;
    if (!std::isfinite(a)) continue;
    most = std::max(most, std::fabs(a - b));
    largest = std::max(largest, std::fabs(b));
  }
  return most ? most / largest : 0;
}

static double difference(const Array &array) {
  if (array.type == 'f') return difference<float>(array);
  if (array.type == 'd') return difference<double>(array);
  return std::memcmp(array.now, array.after, array.bytes) ? INFINITY : 0;
}

// Whole numbers and pointers are passed in registers of one kind, then on the stack, and others in those of another
// kind, on x86-64 and AArch64 under Linux alike; what a kernel does not take it does not look at.
template <typename Real> static void call(void *kernel, const std::vector<int64_t> &w, const std::vector<double> &r) {
  using Word = int64_t;
  using Kernel = void (*)(Word, Word, Word, Word, Word, Word, Word, Word, Word, Word, Word, Word, Word, Word, Word, Word,
                          Word, Word, Word, Word, Word, Word, Word, Word, Real, Real);
  reinterpret_cast<Kernel>(kernel)(w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8], w[9], w[10], w[11], w[12],
                                   w[13], w[14], w[15], w[16], w[17], w[18], w[19], w[20], w[21], w[22], w[23],
                                   static_cast<Real>(r[0]), static_cast<Real>(r[1]));
}

int main(int count, char **words) {
  if (count != 4) fail("expected LIBRARY RECORDS REAL");
  void *library = dlopen(words[1], RTLD_NOW);
  if (!library) fail(dlerror());
  records = std::fopen(words[2], "rb");
  if (!records) fail("the records cannot be opened");
  const bool is_float = std::string(words[3]) == "float";
  std::map<std::string, std::pair<long, double>> found;
  char name[33] = {};
  while (std::fread(name, 32, 1, records) == 1) {
    void *kernel = dlsym(library, name);
    if (!kernel) fail(dlerror());
    std::vector<Array> arrays(read<int64_t>());
    for (Array &array : arrays) {
      array.type = static_cast<char>(read<int64_t>());
      array.bytes = read<int64_t>();
      array.now = loaded(array.bytes);
      array.after = loaded(array.bytes);
    }
    std::vector<int64_t> whole;
    std::vector<double> real;
    for (int64_t left = read<int64_t>(); left; --left) {
      const char kind = static_cast<char>(read<int64_t>());
      if (kind == 'p') {
        const int64_t number = read<int64_t>();
        whole.push_back(reinterpret_cast<int64_t>(arrays[number].now + read<int64_t>()));
      } else if (kind == 'l')
        whole.push_back(read<int64_t>());
      else if (kind == 'r')
        real.push_back(read<double>());
      else
        whole.push_back(0);
    }
    if (whole.size() > 24 || real.size() > 2) fail(std::string(name) + " takes more than this driver passes");
    whole.resize(24);
    real.resize(2);
    is_float ? call<float>(kernel, whole, real) : call<double>(kernel, whole, real);
    auto &[calls, most] = found[name];
    ++calls;
    for (Array &array : arrays) {
      most = std::max(most, difference(array));
      std::free(array.now);
      std::free(array.after);
    }
  }
  for (const auto &[kernel, what] : found) std::printf("%s %ld %.3g\n", kernel.c_str(), what.first, what.second);
}
