#include "examples/thumbnail/jpeg.hpp"

#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstdio>
#include <stdexcept>

#include <jpeglib.h>  // Needs <cstdio> before it.

namespace thumbnail {
namespace {

constexpr std::uint64_t pixels_max = 40'000'000;  // A progressive file takes up to 6 bytes a pixel.
constexpr int scans_max = 64;  // A small file can hold thousands of scans of a large picture.

/// libjpeg reports errors by a call that must not return: it jumps back to where the work began.
/// No object with a destructor may live between the setjmp and the libjpeg calls below it.
struct Errors {
  jpeg_error_mgr base{};
  std::jmp_buf back{};
  std::array<char, JMSG_LENGTH_MAX> text{};

  Errors() {
    jpeg_std_error(&base);
    base.error_exit = &fail;
    base.emit_message = [](j_common_ptr common, int level) {
      // A damaged or cut-off file is only a warning to libjpeg, which goes on with grey.
      if (level < 0) fail(common);
    };
    base.output_message = [](j_common_ptr) {};
  }

  [[noreturn]] static void fail(j_common_ptr common) {
    auto* self = reinterpret_cast<Errors*>(common->err);  // The first member.
    common->err->format_message(common, self->text.data());
    std::longjmp(self->back, 1);
  }

  [[noreturn]] static void fail(j_common_ptr common, const char* text) {
    auto* self = reinterpret_cast<Errors*>(common->err);
    std::snprintf(self->text.data(), self->text.size(), "%s", text);
    std::longjmp(self->back, 1);
  }
};

struct Decoder {
  Errors errors;
  jpeg_progress_mgr progress{};
  jpeg_decompress_struct info{};

  Decoder() { info.err = &errors.base; }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;
  ~Decoder() { jpeg_destroy_decompress(&info); }

  bool start(std::span<const std::byte> jpeg, std::uint32_t edge_min) {
    if (setjmp(errors.back) != 0) return false;
    jpeg_create_decompress(&info);
    progress.progress_monitor = [](j_common_ptr common) {
      if (reinterpret_cast<j_decompress_ptr>(common)->input_scan_number > scans_max)
        Errors::fail(common, "the picture has too many scans");
    };
    info.progress = &progress;
    jpeg_mem_src(&info, reinterpret_cast<const unsigned char*>(jpeg.data()), jpeg.size());
    jpeg_read_header(&info, TRUE);
    if (std::uint64_t{info.image_width} * info.image_height > pixels_max)
      Errors::fail(reinterpret_cast<j_common_ptr>(&info), "the picture has too many pixels");
    info.out_color_space = JCS_RGB;
    info.scale_num = 1;
    info.scale_denom = 1;
    while (info.scale_denom < 8 &&
           std::max(info.image_width, info.image_height) / (info.scale_denom * 2) >= edge_min)
      info.scale_denom *= 2;
    jpeg_start_decompress(&info);
    return true;
  }

  bool read(std::uint8_t* rows, std::size_t row_bytes) {
    if (setjmp(errors.back) != 0) return false;
    while (info.output_scanline < info.output_height) {
      JSAMPROW row = rows + info.output_scanline * row_bytes;
      jpeg_read_scanlines(&info, &row, 1);
    }
    jpeg_finish_decompress(&info);
    return true;
  }
};

struct Encoder {
  Errors errors;
  jpeg_destination_mgr destination{};
  jpeg_compress_struct info{};

  Encoder() { info.err = &errors.base; }
  Encoder(const Encoder&) = delete;
  Encoder& operator=(const Encoder&) = delete;
  ~Encoder() { jpeg_destroy_compress(&info); }

  bool write(const Image& image, std::uint32_t quality, std::span<std::byte> output) {
    if (setjmp(errors.back) != 0) return false;
    jpeg_create_compress(&info);
    destination.next_output_byte = reinterpret_cast<JOCTET*>(output.data());
    destination.free_in_buffer = output.size();
    destination.init_destination = [](j_compress_ptr) {};
    destination.empty_output_buffer = [](j_compress_ptr full) -> boolean {
      Errors::fail(reinterpret_cast<j_common_ptr>(full), "the thumbnail is larger than the room for it");
    };
    destination.term_destination = [](j_compress_ptr) {};
    info.dest = &destination;
    info.image_width = image.width;
    info.image_height = image.height;
    info.input_components = 3;
    info.in_color_space = JCS_RGB;
    jpeg_set_defaults(&info);
    jpeg_set_quality(&info, static_cast<int>(quality), TRUE);
    jpeg_start_compress(&info, TRUE);
    while (info.next_scanline < info.image_height) {
      auto* row = const_cast<JSAMPROW>(image.rgb.data() + std::size_t{info.next_scanline} * image.width * 3);
      jpeg_write_scanlines(&info, &row, 1);
    }
    jpeg_finish_compress(&info);
    return true;
  }
};

}  // namespace

Image decode(std::span<const std::byte> jpeg, std::uint32_t edge_min) {
  Decoder decoder;
  if (!decoder.start(jpeg, edge_min)) throw std::runtime_error(decoder.errors.text.data());
  Image image{decoder.info.output_width, decoder.info.output_height, {}};
  const std::size_t row_bytes = std::size_t{image.width} * 3;
  image.rgb.resize(row_bytes * image.height);
  if (!decoder.read(image.rgb.data(), row_bytes)) throw std::runtime_error(decoder.errors.text.data());
  return image;
}

std::size_t encode(const Image& image, std::uint32_t quality, std::span<std::byte> output) {
  if (output.empty())
    throw std::runtime_error("there is no room for the thumbnail");  // libjpeg writes first.
  Encoder encoder;
  if (!encoder.write(image, quality, output)) throw std::runtime_error(encoder.errors.text.data());
  return output.size() - encoder.destination.free_in_buffer;
}

}  // namespace thumbnail
