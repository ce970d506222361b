namespace LightningAttn;

/// <summary>
/// The switch that makes a slot out of range an error on CUDA too, at the price of a synchronisation per decode call:
/// the environment variable LATTN_DEBUG_SLOTS=1, or the AppContext switch LightningAttn.DebugSlots.
/// </summary>
internal static class SlotDebugging
{
    internal const string SwitchName = "LightningAttn.DebugSlots";

    private static readonly bool s_environment = Environment.GetEnvironmentVariable("LATTN_DEBUG_SLOTS") == "1";

    internal static bool Enabled => s_environment || (AppContext.TryGetSwitch(SwitchName, out bool on) && on);
}
