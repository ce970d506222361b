namespace Serve;

/// <summary>A prompt that is to be continued.</summary>
/// <param name="Id">Its number, by arrival.</param>
/// <param name="ArrivalStep">The engine's step before which it arrives.</param>
/// <param name="Prompt">At least one byte.</param>
/// <param name="NewTokens">How many bytes to generate; at least 1.</param>
internal sealed record Request(int Id, int ArrivalStep, byte[] Prompt, int NewTokens);
