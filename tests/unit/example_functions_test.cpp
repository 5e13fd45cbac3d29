// The functions of examples/, loaded and called as a worker does it, without a worker.
#include <dlfcn.h>
#include <sublet/function.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <numeric>
#include <string>
#include <vector>

#include "examples/digits/dataset.hpp"
#include "examples/thumbnail/jpeg.hpp"
#include "examples/thumbnail/request.hpp"
#include "tests/catch.hpp"

namespace {

struct Reply {
  int status = 0;
  std::string message;
  std::vector<std::byte> output;
};

/// A module as a worker holds it: loaded, its state made, torn down at the end.
class Module {
 public:
  explicit Module(const char* path) : library_(dlopen(path, RTLD_NOW | RTLD_LOCAL)) {
    INFO(path);
    REQUIRE(library_ != nullptr);
    module_ = static_cast<const sublet_module_v1*>(dlsym(library_, "sublet_module"));
    REQUIRE(module_ != nullptr);
    REQUIRE(module_->abi == SUBLET_FUNCTION_ABI);
    REQUIRE(module_->entry_count == 1);
    if (module_->init != nullptr) REQUIRE(module_->init(&state_, message_.data(), message_.size()) == 0);
  }
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;
  ~Module() {
    if (module_->teardown != nullptr) module_->teardown(state_);
    dlclose(library_);
  }

  /// Calls with copies whose ends a sanitizer watches.
  Reply call(const std::vector<std::byte>& input, std::size_t capacity) {
    Reply reply;
    reply.output.resize(capacity);
    message_.front() = '\0';
    sublet_call call{};
    call.size_bytes = sizeof call;
    call.input = input.data();
    call.input_bytes = input.size();
    call.output = reply.output.data();
    call.output_capacity = capacity;
    call.state = state_;
    call.message = message_.data();
    call.message_capacity = message_.size();
    reply.status = module_->entries[0].call(&call);
    reply.message = message_.data();
    reply.output.resize(call.output_bytes);
    return reply;
  }

 private:
  void* library_;
  const sublet_module_v1* module_ = nullptr;
  void* state_ = nullptr;
  std::array<char, 256> message_{};
};

std::vector<std::byte> bytes_of(const void* data, std::size_t size) {
  const auto* first = static_cast<const std::byte*>(data);
  return {first, first + size};
}

std::vector<std::byte> photograph() {
  std::ifstream file(SUBLET_SOURCE_DIR "/examples/thumbnail/photos/china.jpg", std::ios::binary);
  const std::vector<char> chars{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  return bytes_of(chars.data(), chars.size());
}

std::vector<std::byte> request(thumbnail::Request header, const std::vector<std::byte>& jpeg) {
  std::vector<std::byte> input(sizeof header + jpeg.size());
  std::memcpy(input.data(), &header, sizeof header);
  std::copy(jpeg.begin(), jpeg.end(), input.begin() + sizeof header);
  return input;
}

}  // namespace

TEST_CASE("digits classifies at least 95 % of the held-out images") {
  const digits::Dataset data =
      digits::held_out(digits::load(SUBLET_SOURCE_DIR "/examples/digits/digits.csv.gz"));
  REQUIRE(data.images.size() == 599);
  Module module(DIGITS_MODULE);
  const Reply reply =
      module.call(bytes_of(data.images.data(), data.images.size() * digits::pixels), data.images.size());
  INFO(reply.message);
  REQUIRE(reply.status == 0);
  REQUIRE(reply.output.size() == data.labels.size());
  const auto* labels = reinterpret_cast<const std::uint8_t*>(reply.output.data());
  const auto correct = std::inner_product(data.labels.begin(), data.labels.end(), labels, 0, std::plus<>{},
                                          [](auto a, auto b) { return a == b ? 1 : 0; });
  REQUIRE(correct >= 570);  // 95.2 % of 599
}

TEST_CASE("digits refuses half an image and too little room") {
  Module module(DIGITS_MODULE);
  REQUIRE(module.call(std::vector<std::byte>(0), 0).status == 0);
  const Reply half = module.call(std::vector<std::byte>(96), 8);
  REQUIRE(half.status != 0);
  REQUIRE_FALSE(half.message.empty());
  const Reply narrow = module.call(std::vector<std::byte>(3 * digits::pixels), 2);
  REQUIRE(narrow.status != 0);
  REQUIRE_FALSE(narrow.message.empty());
}

TEST_CASE("the digits file is refused with the line that is wrong") {
  REQUIRE_THROWS_WITH(digits::load("/nonexistent/digits.csv.gz"), Catch::Contains("cannot open"));
  REQUIRE_THROWS_WITH(digits::load(SUBLET_SOURCE_DIR "/LICENSE"), Catch::Contains("line 1"));
}

TEST_CASE("a thumbnail has the edge that was asked for and shows the photograph") {
  Module module(THUMBNAIL_MODULE);
  const std::uint32_t edge = GENERATE(1U, 17U, 160U, 640U, 2048U);
  const Reply reply = module.call(request({edge, 85}, photograph()), std::size_t{1} << 20);
  INFO(reply.message);
  REQUIRE(reply.status == 0);
  const thumbnail::Image image = thumbnail::decode(reply.output, 100'000);
  const std::uint32_t width = std::min(edge, 640U);
  REQUIRE(image.width == width);
  REQUIRE(image.height == std::max(1U, (width * 427 + 320) / 640));

  // The mean colour survives scaling.
  const thumbnail::Image whole = thumbnail::decode(photograph(), 100'000);
  const auto mean = [](const thumbnail::Image& of) {
    return std::accumulate(of.rgb.begin(), of.rgb.end(), 0.0) / static_cast<double>(of.rgb.size());
  };
  REQUIRE(mean(image) == Approx(mean(whole)).margin(3.0));
}

TEST_CASE("a thumbnail's request is checked") {
  Module module(THUMBNAIL_MODULE);
  const auto fails = [&](const std::vector<std::byte>& input, std::size_t room) {
    const Reply reply = module.call(input, room);
    return reply.status != 0 && !reply.message.empty() && reply.output.empty();
  };
  const std::vector<std::byte> jpeg = photograph();
  REQUIRE(fails({}, 1 << 20));
  REQUIRE(fails(std::vector<std::byte>(7), 1 << 20));
  REQUIRE(fails(request({0, 85}, jpeg), 1 << 20));
  REQUIRE(fails(request({thumbnail::edge_limit + 1, 85}, jpeg), 1 << 20));
  REQUIRE(fails(request({160, 0}, jpeg), 1 << 20));
  REQUIRE(fails(request({160, 101}, jpeg), 1 << 20));
  REQUIRE(fails(request({160, 85}, {}), 1 << 20));
  REQUIRE(fails(request({160, 85}, jpeg), 100));
  REQUIRE(fails(request({160, 85}, jpeg), 0));
}

TEST_CASE("a hostile JPEG is refused and the next one still works") {
  Module module(THUMBNAIL_MODULE);
  const std::vector<std::byte> jpeg = photograph();
  SECTION("cut off anywhere") {
    for (std::size_t length = 0; length < jpeg.size() - 2; length += length < 700 ? 7 : 9'973) {
      INFO(length);
      const auto part = bytes_of(jpeg.data(), length);
      REQUIRE(module.call(request({64, 85}, part), 1 << 20).status != 0);
    }
  }
  SECTION("a header that claims more pixels than the limit") {
    std::vector<std::byte> large = jpeg;
    const std::array<std::byte, 2> frame{std::byte{0xFF}, std::byte{0xC0}};
    const auto at = std::search(large.begin(), large.end(), frame.begin(), frame.end());
    REQUIRE(at != large.end());
    std::fill_n(at + 5, 4, std::byte{0xFE});  // height and width
    const Reply reply = module.call(request({64, 85}, large), 1 << 20);
    REQUIRE(reply.status != 0);
    REQUIRE_THAT(reply.message, Catch::Contains("too many pixels"));
  }
  SECTION("bytes changed at random never crash it") {
    std::uint32_t random = 1;
    const auto next = [&random] { return random = random * 1'664'525U + 1'013'904'223U; };
    for (int round = 0; round < 60; ++round) {
      std::vector<std::byte> changed = jpeg;
      for (int change = 0; change < 8; ++change)
        changed[next() % (change < 4 ? 700 : changed.size())] = static_cast<std::byte>(next() >> 24U);
      const Reply reply = module.call(request({64, 85}, changed), 1 << 20);
      REQUIRE((reply.status == 0) == reply.message.empty());
    }
  }
  REQUIRE(module.call(request({64, 85}, jpeg), 1 << 20).status == 0);
}
