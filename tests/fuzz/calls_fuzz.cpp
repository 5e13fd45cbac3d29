// What a client writes into a worker's memory and announces: headers, attaches and words of any content,
// through the real invoker. The function checks that it is handed memory of its own lease alone.

#include <dlfcn.h>
#include <sys/eventfd.h>

#include <array>
#include <deque>

#include "executor/worker/invoker.hpp"
#include "tests/fuzz/bounds.hpp"
#include "tests/fuzz/input.hpp"

using namespace sublet;
using transport::Completion;

namespace {

constexpr std::size_t region_bytes = 64 * 1024;
constexpr std::size_t batch_max = 16;

/// A client that does what the input says, and a network that sometimes is full.
class Client final : public transport::Connection {
 public:
  Client(fuzz::Input input, const memory::Region& region, const memory::Region& output)
      : input_(input), region_(region), output_(output), event_(::eventfd(0, EFD_CLOEXEC)) {}

  Status write(std::span<const std::span<const std::byte>> pieces, const transport::RemoteRegion& remote,
               std::uint64_t offset, std::uint32_t, WriteOptions options) noexcept override {
    std::size_t total = 0;
    for (const auto piece : pieces) total += piece.size();
    for (const auto piece : pieces) check_source(piece, total);
    return take_write(total, remote, offset, options);
  }
  Status write_silent(std::span<const std::byte> piece, const transport::RemoteRegion& remote,
                      std::uint64_t offset, WriteOptions options) noexcept override {
    check_source(piece, piece.size());
    return take_write(piece.size(), remote, offset, options);
  }
  std::size_t poll(std::span<Completion> out) noexcept override {
    std::size_t count = 0;
    for (; count < out.size() && !sent_.empty(); ++count) {
      out[count] = {.kind = Completion::Kind::sent, .context = sent_.front()};
      sent_.pop_front();
    }
    for (std::size_t steps = 0; steps < batch_max && count < out.size(); ++steps) {
      if (input_.empty()) {
        if (count > 0) return count;  // What has arrived runs before the end is told.
        out[count] = {.kind = Completion::Kind::down, .error = Errc::closed};
        return count + (std::exchange(down_, true) ? 0 : 1);
      }
      if (!step(out[count])) return count;
      if (out[count].kind == Completion::Kind::arrival && out[count].word != 0) ++count;
    }
    return count;
  }
  bool arm() noexcept override {
    return false;
  }  // Something has come: there is always more input, or the end.
  int descriptor() const noexcept override { return event_.get(); }
  void say_last_words(std::span<const std::byte> message) noexcept override {
    SUBLET_ASSERT(message.size() <= 64);
  }
  std::span<const std::byte> last_words() const noexcept override { return {}; }
  void close() noexcept override {}
  std::string_view transport_name() const noexcept override { return "fuzz"; }

 private:
  /// One thing that the client does; an arrival, if it is one, in `completion`. False: nothing for now.
  bool step(Completion& completion) noexcept {
    completion = {};
    switch (input_.number() % 6) {
      case 0: {  // Writes anywhere into the worker's region, as it may.
        const std::size_t offset = input_.number<std::uint16_t>();
        const std::string_view bytes = input_.take(input_.number());
        std::memcpy(region_.data() + offset, bytes.data(), std::min(bytes.size(), region_.size() - offset));
        return true;
      }
      case 1:
        completion.word = input_.number<std::uint32_t>();
        completion.length = input_.number<std::uint64_t>();
        return true;
      case 2:  // The same with a length that fits.
        completion.word = input_.number<std::uint32_t>();
        completion.length = input_.number<std::uint16_t>() % 2048;
        return true;
      case 3: {  // A proper attach, so that calls are reached without luck.
        const wire::Attach attach{.region_bytes = region_bytes, .messages_offset = 0};
        std::memcpy(region_.data() + wire::attach_offset, &attach, sizeof(attach));
        completion.word = wire::Word{static_cast<std::uint8_t>(wire::RequestKind::attach), 0, 0}.pack();
        completion.length = sizeof(attach);
        return true;
      }
      case 4:
        full_ = input_.number() % 8;
        return true;
      default:
        return false;
    }
  }

  /// A small write may come from anywhere; a large one from the output region, which outlives it.
  void check_source(std::span<const std::byte> piece, std::size_t total) const noexcept {
    constexpr std::size_t inline_bytes = limits::message_bytes;
    SUBLET_ASSERT(piece.empty() || total <= inline_bytes || output_.contains(piece.data(), piece.size()));
    for (const std::byte byte : piece) static_cast<void>(*const_cast<const volatile std::byte*>(&byte));
  }
  Status take_write(std::size_t bytes, const transport::RemoteRegion& remote, std::uint64_t offset,
                    WriteOptions options) noexcept {
    if (full_ > 0) {
      --full_;
      return Errc::queue_full;
    }
    SUBLET_ASSERT(offset <= remote.bytes && bytes <= remote.bytes - offset);
    if (options.signal) sent_.push_back(options.context);
    return {};
  }

  fuzz::Input input_;
  const memory::Region& region_;
  const memory::Region& output_;
  FileDescriptor event_;
  std::deque<std::uint64_t> sent_;
  int full_ = 0;
  bool down_ = false;
};

worker::Module load(const memory::Region& input, const memory::Region& output) {
  void* library = ::dlopen(SUBLET_FUZZ_FUNCTION, RTLD_NOW);
  SUBLET_ASSERT(library != nullptr);
  auto* bounds = static_cast<fuzz::Bounds*>(::dlsym(library, "sublet_fuzz_bounds"));
  SUBLET_ASSERT(bounds != nullptr);
  *bounds = {input.data(), input.size(), output.data(), output.size()};
  return worker::Module::load(SUBLET_FUZZ_FUNCTION).value();
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const memory::Region region = memory::Region::create(region_bytes, "input").value();
  static const memory::Region output = memory::Region::create(region_bytes, "output").value();
  static const worker::Module module = load(region, output);
  fuzz::Input input(data, size);
  const auto shape = input.number();
  const Result<wire::Layout> layout = wire::layout_of(
      {.slots_log2 = static_cast<std::uint8_t>(shape % 4),
       .slot_bytes_log2 = static_cast<std::uint8_t>(limits::slot_bytes_log2_min + shape / 4 % 4)},
      region.size());
  if (!layout) return 0;
  std::memset(region.data(), 0, region.size());
  static local::UsageRecord usage;
  worker::Invoker invoker({std::make_unique<Client>(input, region, output), *layout, &region, &output},
                          module, usage);
  static_cast<void>(invoker.run());
  return 0;
}
