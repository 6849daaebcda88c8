//! The terminal, lent to a program in a process group of its own: it can ask for a password there, and Ctrl-C and
//! Ctrl-Z are for it.

use std::fs::File;
use std::io::{IsTerminal, stderr, stdin, stdout};
use std::process::Child;

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, getpgrp, kill_current_process_group, kill_process_group, waitid,
};
use rustix::termios::{tcgetpgrp, tcsetpgrp};

use crate::trap;

/// The terminal in whose foreground this process is.
pub struct Terminal(File);

impl Terminal {
    /// `None` unless input and output are the terminal too.
    pub fn own() -> Option<Terminal> {
        if !(stdin().is_terminal() && stdout().is_terminal() && stderr().is_terminal()) {
            return None;
        }
        let terminal = Terminal(File::options().read(true).write(true).open("/dev/tty").ok()?);
        terminal.is_ours().then_some(terminal)
    }

    fn is_ours(&self) -> bool {
        tcgetpgrp(&self.0).is_ok_and(|foreground| foreground == getpgrp())
    }

    pub fn lend(self, program: &Child) -> Lent {
        // Who is not in the foreground takes it, or is stopped for trying.
        trap::ignore_background_stops();
        let lent = Lent {
            terminal: self,
            to: Pid::from_child(program),
        };
        lent.hand_over();
        lent
    }
}

/// A terminal that is taken back at the end.
pub struct Lent {
    terminal: Terminal,
    to: Pid,
}

impl Lent {
    fn hand_over(&self) {
        if self.terminal.is_ours() {
            let _ = tcsetpgrp(&self.terminal.0, self.to);
        }
        // It may have been stopped for using the terminal too early.
        let _ = kill_process_group(self.to, Signal::CONT);
    }

    fn is_lent(&self) -> bool {
        tcgetpgrp(&self.terminal.0).is_ok_and(|foreground| foreground == self.to)
    }

    fn take_back(&self) {
        let _ = tcsetpgrp(&self.terminal.0, getpgrp());
    }

    /// If the program has been stopped by Ctrl-Z, so are we, until the shell has us go on.
    pub fn stop_together(&self) {
        let stopped = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        let Ok(Some(status)) = waitid(WaitId::Pid(self.to), stopped) else {
            return;
        };
        // Who wanted the terminal while it was being lent may be stopped for it afterwards, with the terminal.
        let for_nothing = matches!(status.stopping_signal(), Some(libc::SIGTTIN | libc::SIGTTOU)) && self.is_lent();
        if !for_nothing {
            self.take_back();
            let _ = kill_current_process_group(Signal::TSTP);
        }
        self.hand_over();
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.take_back();
    }
}
