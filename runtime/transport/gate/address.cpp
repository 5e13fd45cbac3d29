#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/un.h>

#include <cstddef>
#include <cstring>

#include "runtime/transport/gate/gate.hpp"

namespace sublet::transport::gate {

Result<Address> parse_inet(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == text.size()) {
    return Error(Errc::invalid_argument,
                 "'" + text + "' is no address; write HOST:PORT, for example 127.0.0.1:0");
  }
  std::string host = text.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(host.c_str(), text.c_str() + colon + 1, &hints, &found);
  if (error != 0) {
    return Error(Errc::invalid_argument,
                 "'" + text + "' is no numeric address and port: " + ::gai_strerror(error));
  }
  Address address;
  std::memcpy(&address.storage, found->ai_addr, found->ai_addrlen);
  address.length = found->ai_addrlen;
  ::freeaddrinfo(found);
  return address;
}

Result<Address> parse_unix(const std::string& path) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(name.sun_path)) {
    return Error(Errc::invalid_argument, "a socket's path has 1 to " +
                                             std::to_string(sizeof(name.sun_path) - 1) + " bytes; '" + path +
                                             "' has " + std::to_string(path.size()));
  }
  std::memcpy(name.sun_path, path.data(), path.size());
  Address address;
  address.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + 1);
  std::memcpy(&address.storage, &name, sizeof(name));
  return address;
}

std::string to_text(const Address& address) {
  if (address.storage.ss_family == AF_UNIX) {
    sockaddr_un name{};
    std::memcpy(&name, &address.storage, sizeof(name));
    return {name.sun_path, ::strnlen(name.sun_path, sizeof(name.sun_path))};
  }
  std::array<char, NI_MAXHOST> host{};
  std::array<char, NI_MAXSERV> port{};
  if (::getnameinfo(address.get(), address.length, host.data(), host.size(), port.data(), port.size(),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return "unknown address";
  }
  std::string text;
  const bool six = address.storage.ss_family == AF_INET6;
  text.append(six ? "[" : "").append(host.data()).append(six ? "]:" : ":").append(port.data());
  return text;
}

}  // namespace sublet::transport::gate
