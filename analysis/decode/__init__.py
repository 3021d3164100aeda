"""System calls and process events as text, in the manner of strace."""
