/* BCC's prelude names this file; no program of ours needs packet sockets. */
