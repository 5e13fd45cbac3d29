// Scales a photograph: a Request and a JPEG in, a JPEG out.
#include <sublet/function.hpp>

#include <cstring>

#include "examples/thumbnail/jpeg.hpp"
#include "examples/thumbnail/request.hpp"
#include "examples/thumbnail/scale.hpp"

namespace {

std::size_t thumbnail_of(const sublet::Call& call) {
  thumbnail::Request request;
  if (call.input().size() < sizeof request)
    throw std::invalid_argument("the input is shorter than its header");
  std::memcpy(&request, call.input().data(), sizeof request);
  if (request.edge_max < 1 || request.edge_max > thumbnail::edge_limit)
    throw std::invalid_argument("edge_max is 1 to " + std::to_string(thumbnail::edge_limit));
  if (request.quality < 1 || request.quality > 100) throw std::invalid_argument("quality is 1 to 100");
  thumbnail::Image image = thumbnail::decode(call.input().subspan(sizeof request), request.edge_max);
  image = thumbnail::scale(std::move(image), request.edge_max);
  return thumbnail::encode(image, request.quality, call.output());
}

}  // namespace

SUBLET_FUNCTION(thumbnail_of)
