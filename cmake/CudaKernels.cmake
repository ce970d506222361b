# CUDA kernels as fatbins inside the library.
#
# nvcc compiles device code only (-fatbin); the host side is C++ over the driver API. So nothing of nvcc's host compiler
# gets into the library, and the same fatbins serve a library cross-compiled for Windows.

# lattn_find_cuda(): sets LATTN_CUDA_FOUND, LATTN_NVCC, LATTN_CUDA_BIN, LATTN_CUDA_INCLUDE, LATTN_CUDA_VERSION.
# Looked for in CUDACXX, CUDA_HOME, CUDA_PATH, the folder of scripts/install-cuda-compiler.sh, PATH, /usr/local/cuda.
function(lattn_find_cuda)
    set(LATTN_CUDA_FOUND FALSE PARENT_SCOPE)
    if(LATTN_CUDA STREQUAL "OFF")
        return()
    endif()

    set(prefix "$ENV{LATTN_CUDA_PREFIX}")
    if(NOT prefix)
        set(cache "$ENV{XDG_CACHE_HOME}")
        if(NOT cache)
            set(cache "$ENV{HOME}/.cache")
        endif()
        set(prefix "${cache}/lightning_attn/cuda")
    endif()
    if(DEFINED ENV{CUDACXX})
        set(LATTN_NVCC "$ENV{CUDACXX}" CACHE FILEPATH "nvcc")
    endif()
    find_program(LATTN_NVCC nvcc
        HINTS "$ENV{CUDA_HOME}/bin" "$ENV{CUDA_PATH}/bin" "${prefix}/bin"
        PATHS /usr/local/cuda/bin DOC "nvcc")
    if(NOT LATTN_NVCC)
        if(LATTN_CUDA STREQUAL "ON")
            message(FATAL_ERROR "LATTN_CUDA=ON but no nvcc was found: set CUDACXX or run "
                "scripts/install-cuda-compiler.sh")
        endif()
        message(STATUS "CUDA: none, no nvcc found (scripts/install-cuda-compiler.sh installs one)")
        return()
    endif()

    execute_process(COMMAND "${LATTN_NVCC}" --version OUTPUT_VARIABLE output ERROR_VARIABLE output
        RESULT_VARIABLE result)
    if(NOT result EQUAL 0 OR NOT output MATCHES "release ([0-9]+\\.[0-9]+)")
        message(FATAL_ERROR "${LATTN_NVCC} --version failed:\n${output}")
    endif()
    set(version ${CMAKE_MATCH_1})
    if(version VERSION_LESS 12.0)
        message(FATAL_ERROR "The kernels need CUDA 12.0 or newer; ${LATTN_NVCC} is ${version}")
    endif()

    file(REAL_PATH "${LATTN_NVCC}" nvcc)
    cmake_path(GET nvcc PARENT_PATH bin)
    find_path(LATTN_CUDA_INCLUDE cuda.h HINTS "${bin}/../include" "${bin}/../targets/x86_64-linux/include"
        "${bin}/../targets/sbsa-linux/include" NO_CMAKE_FIND_ROOT_PATH DOC "Folder of cuda.h")
    if(NOT LATTN_CUDA_INCLUDE)
        message(FATAL_ERROR "cuda.h was not found near ${LATTN_NVCC}; set LATTN_CUDA_INCLUDE to its folder")
    endif()
    list(JOIN LATTN_CUDA_ARCHITECTURES ", " architectures)
    message(STATUS "CUDA: ${version} (${LATTN_NVCC}) for ${architectures}")

    set(LATTN_CUDA_FOUND TRUE PARENT_SCOPE)
    set(LATTN_CUDA_BIN "${bin}" PARENT_SCOPE)
    set(LATTN_CUDA_VERSION "${version}" PARENT_SCOPE)
endfunction()

# lattn_gencode(result architectures...): nvcc's flags for architectures in CMake's notation. Those of one major number
# share the PTX of the lowest of them: no kernel asks for more, and nvcc's front end runs once instead of for each. What
# an architecture has to itself (90a) is shared with no other.
function(lattn_gencode result)
    set(flags)
    set(architectures ${ARGN})
    list(SORT architectures COMPARE NATURAL)
    foreach(architecture IN LISTS architectures)
        if(NOT architecture MATCHES "^([0-9]+[af]?)(-real|-virtual)?$")
            message(FATAL_ERROR "LATTN_CUDA_ARCHITECTURES: '${architecture}' is not like 80, 80-real or 80-virtual")
        endif()
        set(number ${CMAKE_MATCH_1})
        set(kind "${CMAKE_MATCH_2}")
        if(NOT kind STREQUAL "-virtual")
            set(ptx ${number})
            if(NOT number MATCHES "[af]$")
                string(REGEX REPLACE "[0-9]$" "" major ${number})
                if(NOT DEFINED lowest_of_${major})
                    set(lowest_of_${major} ${number})
                endif()
                set(ptx ${lowest_of_${major}})
            endif()
            list(APPEND flags -gencode arch=compute_${ptx},code=sm_${number})
        endif()
        if(NOT kind STREQUAL "-real")
            list(APPEND flags -gencode arch=compute_${number},code=compute_${number})
        endif()
    endforeach()
    set(${result} "${flags}" PARENT_SCOPE)
endfunction()

# lattn_compile_fatbins(folder sources...): one fatbin per source, and fatbins.cmake, which says to a build that shares
# the folder what they are. Sources named *_sm90a.cu use instructions that only sm_90a has and are compiled for it
# alone.
function(lattn_compile_fatbins folder)
    file(MAKE_DIRECTORY ${folder})
    set(script_dir ${PROJECT_SOURCE_DIR}/cmake)
    set(lineinfo)
    if(LATTN_CUDA_LINEINFO)
        set(lineinfo -lineinfo)
    endif()
    foreach(source IN LISTS ARGN)
        cmake_path(GET source STEM LAST_ONLY stem)
        if(stem MATCHES "_sm90a$")
            lattn_gencode(gencode 90a-real)
        else()
            lattn_gencode(gencode ${LATTN_CUDA_ARCHITECTURES})
        endif()
        add_custom_command(
            OUTPUT ${folder}/${stem}.fatbin
            BYPRODUCTS ${folder}/${stem}.ptxas.txt
            COMMAND ${CMAKE_COMMAND} -DREPORT=${folder}/${stem}.ptxas.txt -P ${script_dir}/RunNvcc.cmake --
                "${LATTN_NVCC}" -fatbin -O3 -std=c++17 ${gencode} -Xptxas -v -Xfatbin -compress-all ${lineinfo}
                -I${PROJECT_SOURCE_DIR}/native/src/cuda -I${PROJECT_SOURCE_DIR}/native/src
                -I${PROJECT_SOURCE_DIR}/native/include
                -MD -MF ${folder}/${stem}.d -o ${folder}/${stem}.fatbin ${source}
            DEPENDS ${source} ${script_dir}/RunNvcc.cmake
            DEPFILE ${folder}/${stem}.d
            COMMENT "Compiling CUDA kernels ${stem}"
            VERBATIM)
    endforeach()
    file(CONFIGURE OUTPUT ${folder}/fatbins.cmake CONTENT
        "set(shared_version \"${LATTN_CUDA_VERSION}\")\nset(shared_architectures \"${LATTN_CUDA_ARCHITECTURES}\")\n")
endfunction()

# lattn_check_shared_fatbins(folder sources...): the folder has what this build would compile.
function(lattn_check_shared_fatbins folder)
    include(${folder}/fatbins.cmake OPTIONAL RESULT_VARIABLE found)
    set(advice "build the target lightning_attn_fatbins of the build tree that LATTN_FATBIN_DIR (${folder}) is in")
    if(NOT found)
        message(FATAL_ERROR "LATTN_FATBIN_DIR has no fatbins.cmake: ${advice}")
    endif()
    if(NOT "${shared_architectures}" STREQUAL "${LATTN_CUDA_ARCHITECTURES}"
       OR NOT "${shared_version}" STREQUAL "${LATTN_CUDA_VERSION}")
        message(FATAL_ERROR "The fatbins of LATTN_FATBIN_DIR are of CUDA ${shared_version} for "
            "${shared_architectures}, this build's of ${LATTN_CUDA_VERSION} for ${LATTN_CUDA_ARCHITECTURES}")
    endif()
    foreach(source IN LISTS ARGN)
        cmake_path(GET source STEM LAST_ONLY stem)
        if(NOT EXISTS ${folder}/${stem}.fatbin)
            message(FATAL_ERROR "${folder}/${stem}.fatbin is missing: ${advice}")
        endif()
    endforeach()
endfunction()

# lattn_add_cuda_kernels(target sources...): one fatbin per source, embedded in the target as
#     extern "C" const unsigned char lattn_fatbin_<stem>[];
#     extern "C" const unsigned long long lattn_fatbin_<stem>_bytes;
function(lattn_add_cuda_kernels target)
    set(script_dir ${PROJECT_SOURCE_DIR}/cmake)
    set(folder ${PROJECT_BINARY_DIR}/cuda)
    if(LATTN_FATBIN_DIR)
        set(fatbin_folder ${LATTN_FATBIN_DIR})
        lattn_check_shared_fatbins(${fatbin_folder} ${ARGN})
    else()
        set(fatbin_folder ${folder})
        lattn_compile_fatbins(${fatbin_folder} ${ARGN})
    endif()

    set(fatbins)
    foreach(source IN LISTS ARGN)
        cmake_path(GET source STEM LAST_ONLY stem)
        set(fatbin ${fatbin_folder}/${stem}.fatbin)
        list(APPEND fatbins ${fatbin})
        set(embedded ${folder}/${stem}.fatbin.cpp)
        if(WIN32)
            add_custom_command(
                OUTPUT ${embedded}
                COMMAND ${CMAKE_COMMAND} -DBIN2C=${LATTN_CUDA_BIN}/bin2c -DFATBIN=${fatbin} -DSTEM=${stem}
                    -DOUTPUT=${embedded} -P ${script_dir}/EmbedWithBin2c.cmake
                DEPENDS ${fatbin} ${script_dir}/EmbedWithBin2c.cmake
                VERBATIM)
        else()
            configure_file(${script_dir}/EmbedWithIncbin.cpp.in ${embedded} @ONLY)
            set_source_files_properties(${embedded} PROPERTIES OBJECT_DEPENDS ${fatbin})
        endif()
        target_sources(${target} PRIVATE ${embedded})
    endforeach()

    # All fatbins in one target: the Makefile generator compiles them one by one otherwise, as the objects need them.
    add_custom_target(${target}_fatbins DEPENDS ${fatbins})
    add_dependencies(${target} ${target}_fatbins)

    # Headers that host and device share are named from native/src/cuda, where a cuda.h of ours lies: <cuda.h> must
    # stay the toolkit's.
    if(MSVC)
        target_include_directories(${target} PRIVATE ${LATTN_CUDA_INCLUDE} ${PROJECT_SOURCE_DIR}/native/src/cuda)
    else()
        target_include_directories(${target} SYSTEM PRIVATE ${LATTN_CUDA_INCLUDE})
        target_compile_options(${target} PRIVATE "SHELL:-iquote ${PROJECT_SOURCE_DIR}/native/src/cuda")
    endif()
    list(JOIN LATTN_CUDA_ARCHITECTURES "," architectures)
    target_compile_definitions(${target} PRIVATE
        LATTN_CUDA_VERSION="${LATTN_CUDA_VERSION}" LATTN_CUDA_ARCHITECTURES="${architectures}")
endfunction()
