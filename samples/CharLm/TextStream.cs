using System.Text;

namespace CharLm;

/// <summary>Writes UTF-8 byte by byte; what is no text, such as a terminal's control codes, becomes U+FFFD.</summary>
internal sealed class TextStream(TextWriter writer)
{
    private readonly Decoder _decoder = Encoding.UTF8.GetDecoder();
    private readonly char[] _chars = new char[4];

    public void Write(byte next)
    {
        var count = _decoder.GetChars([next], _chars, flush: false);
        for (var i = 0; i < count; i++)
        {
            var c = _chars[i];
            writer.Write(char.IsControl(c) && c is not ('\n' or '\t') ? '\uFFFD' : c);
        }

        writer.Flush();
    }
}
