using TorchSharp;
using static TorchSharp.torch;

namespace MiniMax.Safetensors;

/// <summary>The element types that are read, and their names in headers.</summary>
internal static class SafetensorsTypes
{
    private static readonly Dictionary<string, (ScalarType Type, int Size)> s_types = new(StringComparer.Ordinal)
    {
        ["F64"] = (ScalarType.Float64, 8),
        ["F32"] = (ScalarType.Float32, 4),
        ["F16"] = (ScalarType.Float16, 2),
        ["BF16"] = (ScalarType.BFloat16, 2),
        ["I64"] = (ScalarType.Int64, 8),
        ["I32"] = (ScalarType.Int32, 4),
        ["I16"] = (ScalarType.Int16, 2),
        ["I8"] = (ScalarType.Int8, 1),
        ["U8"] = (ScalarType.Byte, 1),
        ["BOOL"] = (ScalarType.Bool, 1),
    };

    public static string Names => string.Join(", ", s_types.Keys);

    public static bool TryGet(string name, out ScalarType type, out int size)
    {
        var known = s_types.TryGetValue(name, out var found);
        (type, size) = found;
        return known;
    }
}
