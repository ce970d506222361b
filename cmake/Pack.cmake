# cmake -DDOTNET=<dotnet> -DSOURCE_DIR=<repository> -P Pack.cmake
#
# The NuGet packages into artifacts/packages: the managed one, and one for each platform whose native library was built.

file(GLOB platforms RELATIVE ${SOURCE_DIR}/artifacts/native ${SOURCE_DIR}/artifacts/native/*)
file(REMOVE_RECURSE ${SOURCE_DIR}/artifacts/packages)

function(pack)
    execute_process(
        COMMAND ${DOTNET} pack -c Release --nologo -v quiet -o artifacts/packages ${ARGN}
        WORKING_DIRECTORY ${SOURCE_DIR}
        RESULT_VARIABLE result)
    if(NOT result EQUAL 0)
        list(JOIN ARGN " " arguments)
        message(FATAL_ERROR "dotnet pack ${arguments}: exit status ${result}")
    endif()
endfunction()

pack(managed/LightningAttn.TorchSharp)
foreach(platform IN LISTS platforms)
    pack(packaging/LightningAttn.TorchSharp.runtime -p:NativeRid=${platform})
endforeach()

file(GLOB packages ${SOURCE_DIR}/artifacts/packages/*)
foreach(package IN LISTS packages)
    file(SIZE ${package} bytes)
    if(bytes GREATER_EQUAL 250000000)
        message(FATAL_ERROR "${package} has ${bytes} bytes, more than nuget.org takes")
    endif()
    cmake_path(GET package FILENAME name)
    message("${name}: ${bytes} bytes")
endforeach()
