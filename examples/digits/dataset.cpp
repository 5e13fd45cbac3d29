#include "examples/digits/dataset.hpp"

#include <zlib.h>

#include <charconv>
#include <memory>
#include <stdexcept>
#include <string_view>

namespace digits {
namespace {

struct CloseGzip {
  void operator()(gzFile_s* file) const noexcept { gzclose_r(file); }
};

std::string unpack(const std::string& path) {
  const std::unique_ptr<gzFile_s, CloseGzip> file(gzopen(path.c_str(), "rb"));
  if (!file) throw std::runtime_error("cannot open " + path);
  std::string text;
  std::array<char, 65536> chunk{};
  for (;;) {
    const int count = gzread(file.get(), chunk.data(), chunk.size());
    if (count < 0) throw std::runtime_error(path + " is no whole gzip file");
    if (count == 0) return text;
    text.append(chunk.data(), static_cast<std::size_t>(count));
  }
}

/// Takes one number up to `largest` and the separator after it off the front of `line`.
std::uint8_t take_number(std::string_view& line, unsigned largest) {
  unsigned value = 0;
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), value);
  if (error != std::errc{} || value > largest) throw std::runtime_error("not a number up to its limit");
  line.remove_prefix(static_cast<std::size_t>(end - line.data()));
  if (!line.empty() && line.front() == ',') line.remove_prefix(1);
  return static_cast<std::uint8_t>(value);
}

}  // namespace

Dataset load(const std::string& path) {
  const std::string text = unpack(path);
  Dataset all;
  std::string_view rest = text;
  while (!rest.empty()) {
    std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    try {
      Image image{};
      for (std::uint8_t& pixel : image) pixel = take_number(line, 16);
      all.labels.push_back(take_number(line, 9));
      all.images.push_back(image);
    } catch (const std::runtime_error& error) {
      throw std::runtime_error(path + ", line " + std::to_string(all.images.size() + 1) + ": " +
                               error.what());
    }
  }
  return all;
}

Dataset held_out(const Dataset& all) {
  Dataset part;
  for (std::size_t i = 2; i < all.images.size(); i += 3) {
    part.images.push_back(all.images[i]);
    part.labels.push_back(all.labels[i]);
  }
  return part;
}

}  // namespace digits
