# cmake -DBIN2C= -DFATBIN= -DSTEM= -DOUTPUT= -P EmbedWithBin2c.cmake: a fatbin as a C++ array, for assemblers without
# .incbin.

execute_process(COMMAND "${BIN2C}" --const --static --type char --name image "${FATBIN}" OUTPUT_VARIABLE array
    RESULT_VARIABLE result)
if(NOT result EQUAL 0)
    message(FATAL_ERROR "bin2c failed for ${FATBIN}")
endif()
# bin2c's own linkage and alignment are not ours to choose; the array is taken over under the right name.
string(REGEX REPLACE "[^{]*{" "alignas(64) extern const unsigned char lattn_fatbin_${STEM}[] = {" array "${array}")
file(WRITE "${OUTPUT}" "extern \"C\" {\n${array}\n"
    "extern const unsigned long long lattn_fatbin_${STEM}_bytes = sizeof(lattn_fatbin_${STEM});\n}\n")
