using System.Buffers.Binary;
using System.Text;
using System.Text.Json;
using MiniMax.Safetensors;

namespace LightningAttn.Tests.Samples.Decoder;

/// <summary>Safetensors files as bytes, right and wrong ones.</summary>
internal static class SafetensorsBytes
{
    /// <summary>A header as it is given, with its length before and data behind.</summary>
    internal static byte[] Of(string header, int dataLength) =>
        Of(Encoding.Latin1.GetBytes(header), new byte[dataLength]);

    internal static byte[] Of(byte[] header, byte[] data)
    {
        var length = new byte[8];
        BinaryPrimitives.WriteInt64LittleEndian(length, header.Length);
        return [.. length, .. header, .. data];
    }

    /// <summary>The tensors one after the other.</summary>
    internal static byte[] Write(IEnumerable<RawTensor> tensors)
    {
        var header = new Dictionary<string, object>();
        using var data = new MemoryStream();
        foreach (RawTensor tensor in tensors)
        {
            long begin = data.Length;
            data.Write(tensor.Data);
            header.Add(
                tensor.Name,
                new { dtype = tensor.Type, shape = tensor.Shape, data_offsets = new[] { begin, data.Length } });
        }

        return Of(JsonSerializer.SerializeToUtf8Bytes(header), data.ToArray());
    }

    /// <summary>All tensors of a checkpoint's folder, which are fp32.</summary>
    internal static List<RawTensor> ReadFolder(string folder)
    {
        using var scope = torch.NewDisposeScope();
        var tensors = new List<RawTensor>();
        foreach (string path in Directory.EnumerateFiles(folder, "model*.safetensors").Order(StringComparer.Ordinal))
        {
            using SafetensorsFile file = SafetensorsFile.Open(path);
            tensors.AddRange(file.Tensors.Values.Select(entry => new RawTensor(
                entry.Name, "F32", entry.Shape, file.Read(entry.Name).bytes.ToArray())));
        }

        return tensors;
    }
}

/// <summary>A tensor as a file holds it.</summary>
internal sealed record RawTensor(string Name, string Type, long[] Shape, byte[] Data);
