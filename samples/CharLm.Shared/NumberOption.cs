using System.CommandLine;
using System.Globalization;
using System.Numerics;

namespace CharLm;

/// <summary>Options that take a number, with a lower limit and a message that says what was wrong.</summary>
internal static class NumberOption
{
    public static Option<T?> Create<T>(string name, T minimum, string helpName, string description)
        where T : struct, INumber<T> =>
        new(name)
        {
            Description = description,
            HelpName = helpName,
            CustomParser = result =>
            {
                var text = result.Tokens[0].Value;
                var kind = typeof(T) == typeof(double) ? "a number" : "a whole number";
                if (T.TryParse(text, CultureInfo.InvariantCulture, out var value)
                    && T.IsFinite(value) && value >= minimum)
                {
                    return value;
                }

                result.AddError($"{name} {text}: must be {kind}, at least {minimum}");
                return null;
            },
        };
}
