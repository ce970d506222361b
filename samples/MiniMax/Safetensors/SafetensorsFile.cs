using System.Buffers.Binary;
using Microsoft.Win32.SafeHandles;
using TorchSharp;
using static TorchSharp.torch;

namespace MiniMax.Safetensors;

/// <summary>
/// A safetensors file: the length of its header (8 bytes, little-endian), the header, the data (little-endian,
/// row-major). It is open until it is disposed.
/// </summary>
/// <remarks>Whatever the file holds, <see cref="SafetensorsException"/> is the only exception that it causes.</remarks>
internal sealed class SafetensorsFile : IDisposable
{
    private const int LengthBytes = 8;
    private const long MaxHeaderBytes = 100_000_000;
    private const long PieceBytes = 1 << 30; // a span cannot be larger than 2 GiB

    private readonly SafeFileHandle _handle;
    private readonly SafetensorsHeader _header;
    private readonly long _dataStart;

    private SafetensorsFile(string path, SafeFileHandle handle, SafetensorsHeader header, long dataStart)
    {
        Path = path;
        (_handle, _header, _dataStart) = (handle, header, dataStart);
    }

    public string Path { get; }

    public IReadOnlyDictionary<string, SafetensorsEntry> Tensors => _header.Tensors;

    public IReadOnlyDictionary<string, string> Metadata => _header.Metadata;

    /// <exception cref="SafetensorsException">The file cannot be read or breaks a rule of the format.</exception>
    public static SafetensorsFile Open(string path)
    {
        SafeFileHandle? handle = null;
        try
        {
            handle = File.OpenHandle(path, share: FileShare.ReadWrite | FileShare.Delete);
            var (header, dataStart) = ReadHeader(path, handle);
            return new SafetensorsFile(path, handle, header, dataStart);
        }
        catch (Exception e)
        {
            handle?.Dispose();
            if (e is SafetensorsException or not (IOException or UnauthorizedAccessException or NotSupportedException))
            {
                throw;
            }

            throw new SafetensorsException(path, $"cannot be read: {e.Message}", e);
        }
    }

    /// <summary>A new tensor on the CPU.</summary>
    /// <exception cref="SafetensorsException">There is no such tensor, or the file cannot be read.</exception>
    public Tensor Read(string name)
    {
        var entry = Find(name);
        var tensor = empty(entry.Shape, entry.Type);
        try
        {
            Fill(entry, tensor);
            return tensor;
        }
        catch
        {
            tensor.Dispose();
            throw;
        }
    }

    /// <summary>
    /// Into a tensor of the same shape and of any type and device: on the CPU and of the same type without a copy in
    /// between.
    /// </summary>
    /// <exception cref="SafetensorsException">There is no such tensor, its shape is another, or the file cannot be
    /// read.</exception>
    public void ReadInto(string name, Tensor destination)
    {
        var entry = Find(name);
        if (!entry.Shape.AsSpan().SequenceEqual(destination.shape))
        {
            throw new SafetensorsException(
                Path,
                $"tensor '{name}' is [{string.Join(", ", entry.Shape)}], expected "
                + $"[{string.Join(", ", destination.shape)}]");
        }

        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        if (destination.dtype == entry.Type && destination.device_type == DeviceType.CPU
            && destination.is_contiguous())
        {
            Fill(entry, destination);
        }
        else
        {
            destination.copy_(Read(name));
        }
    }

    public void Dispose() => _handle.Dispose();

    private static (SafetensorsHeader Header, long DataStart) ReadHeader(string path, SafeFileHandle handle)
    {
        var fileLength = RandomAccess.GetLength(handle);
        if (fileLength < LengthBytes)
        {
            throw new SafetensorsException(path, $"has {fileLength} bytes, too few for the length of a header");
        }

        Span<byte> prefix = stackalloc byte[LengthBytes];
        ReadExactly(path, handle, prefix, 0);
        var length = BinaryPrimitives.ReadUInt64LittleEndian(prefix);
        if (length > MaxHeaderBytes)
        {
            throw new SafetensorsException(
                path, $"says that its header has {length} bytes, more than the {MaxHeaderBytes} that are allowed");
        }

        var dataStart = LengthBytes + (long)length;
        if (dataStart > fileLength)
        {
            throw new SafetensorsException(
                path, $"says that its header has {length} bytes, but ends after {fileLength - LengthBytes} of them");
        }

        var json = new byte[length];
        ReadExactly(path, handle, json, LengthBytes);
        return (SafetensorsHeader.Parse(path, json, fileLength - dataStart), dataStart);
    }

    private static void ReadExactly(string path, SafeFileHandle handle, Span<byte> buffer, long offset)
    {
        while (!buffer.IsEmpty)
        {
            var read = RandomAccess.Read(handle, buffer, offset);
            if (read == 0)
            {
                throw new SafetensorsException(path, "became shorter while it was read");
            }

            buffer = buffer[read..];
            offset += read;
        }
    }

    private SafetensorsEntry Find(string name) =>
        Tensors.TryGetValue(name, out var entry)
            ? entry
            : throw new SafetensorsException(Path, $"has no tensor '{name}'");

    /// <summary>Reads straight into the memory of a contiguous tensor of the CPU.</summary>
    private void Fill(SafetensorsEntry entry, Tensor tensor)
    {
        if (entry.Length == 0)
        {
            return;
        }

        using var scope = NewDisposeScope();
        var flat = tensor.detach().view(-1);
        var itemSize = entry.Length / flat.numel();
        var pieceItems = PieceBytes / itemSize;
        try
        {
            for (var item = 0L; item < flat.numel(); item += pieceItems)
            {
                var piece = flat.narrow(0, item, Math.Min(pieceItems, flat.numel() - item));
                var bytes = piece.bytes;
                ReadExactly(Path, _handle, bytes, _dataStart + entry.Begin + (item * itemSize));
                if (entry.Type == ScalarType.Bool && bytes.ContainsAnyExceptInRange((byte)0, (byte)1))
                {
                    bytes.Clear();
                    throw new SafetensorsException(Path, $"tensor '{entry.Name}': a BOOL is neither 0 nor 1");
                }

                GC.KeepAlive(piece);
            }
        }
        catch (Exception e) when (e is not SafetensorsException and (IOException or UnauthorizedAccessException))
        {
            throw new SafetensorsException(Path, $"tensor '{entry.Name}' cannot be read: {e.Message}", e);
        }
    }
}
