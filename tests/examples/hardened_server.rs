//! A server that ships with the hardened heap: a client that finds a bug in it ends the process at the bug, and does not
//! get to use it.
//!
//! `cargo run --example hardened_server` prints the port that it listens at. A line `echo TEXT` is answered by TEXT in capitals,
//! `quit` ends the server, and `drop` frees a request's buffer twice, which is the bug.

use fencepost::{Fencepost, Seal};
use std::alloc::{Layout, alloc, dealloc};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process;
use std::thread;

/// `harden` is the default mode. The tables are sealed where the processor has protection keys, and freed memory is withheld longer.
#[global_allocator]
static HEAP: Fencepost = Fencepost::new().seal(Seal::Pkey).quarantine_mb(4);

fn main() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    for client in listener.incoming() {
        let client = client?;
        thread::spawn(move || serve(client));
    }
    Ok(())
}

fn serve(mut client: TcpStream) -> io::Result<()> {
    for line in BufReader::new(client.try_clone()?).lines() {
        let line = line?;
        match line.split_once(' ').map_or((&*line, ""), |(command, text)| (command, text)) {
            ("echo", text) => writeln!(client, "{}", text.to_uppercase())?,
            ("drop", _) => free_twice(),
            ("quit", _) => {
                // What a neighbour wrote over is found by the check, if nobody came upon it before.
                let errors = HEAP.check();
                writeln!(client, "{errors} errors")?;
                process::exit(i32::from(errors != 0));
            }
            _ => writeln!(client, "?")?,
        }
    }
    Ok(())
}

fn free_twice() {
    let layout = Layout::new::<[u8; 100]>();
    // SAFETY: none: the second free is the bug.
    unsafe {
        let buffer = std::hint::black_box(alloc(layout));
        dealloc(buffer, layout);
        dealloc(buffer, layout);
    }
}
