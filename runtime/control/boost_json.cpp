// The one place where Boost.JSON is compiled: into this layer, so that no program depends on its library.
#include <boost/json/src.hpp>
