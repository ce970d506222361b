using CharLm;
using MiniMax;

// Ctrl+C ends the run after the token at hand.
return ConsoleProgram.Run<Options>("minimax", args, CommandLine.Create, Session.Run);
