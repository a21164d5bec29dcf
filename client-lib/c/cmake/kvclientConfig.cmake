# find_package(kvclient) gives the targets kvclient::kvclient and kvclient::kvclient_static.

get_filename_component(_kvclient_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)

if(NOT TARGET kvclient::kvclient)
  add_library(kvclient::kvclient SHARED IMPORTED)
  set_target_properties(kvclient::kvclient PROPERTIES
    IMPORTED_LOCATION "${_kvclient_prefix}/lib/libkvclient.so.0"
    IMPORTED_SONAME "libkvclient.so.0"
    INTERFACE_INCLUDE_DIRECTORIES "${_kvclient_prefix}/include")
endif()

if(NOT TARGET kvclient::kvclient_static)
  add_library(kvclient::kvclient_static STATIC IMPORTED)
  set_target_properties(kvclient::kvclient_static PROPERTIES
    IMPORTED_LOCATION "${_kvclient_prefix}/lib/libkvclient.a"
    INTERFACE_INCLUDE_DIRECTORIES "${_kvclient_prefix}/include"
    INTERFACE_LINK_LIBRARIES "gcc_s;pthread;m;dl;c")
endif()

unset(_kvclient_prefix)
