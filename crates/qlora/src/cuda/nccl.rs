//! NCCL, loaded when ranks on cards meet: the few functions that sum and exchange, with a communicator for each.
//!
//! Promises: nothing of NCCL is needed to start the program; algorithm, protocol and channels are fixed before
//! the library looks, so two runs add in the same order; a rank whose partner is gone is let go instead of
//! waiting on the card for ever. It must not know what the values are.
#![expect(unsafe_code, reason = "NCCL's and the loader's C interface")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use cudarc::driver::sys;

use super::device::check;
use super::memory::Region;
use crate::error::{Error, Result};
use crate::ranks::Collective;

/// Names the library's file where the loader does not find it.
const VARIABLE: &str = "TUNESMITH_NCCL";
const LIBRARY: &str = "libnccl.so.2";

/// What decides the order of sums, and what the user's environment wins over. Rings add in the order of the
/// ranks; eight channels carry more than a backward makes, and leave it its processors. NVLink's multicast
/// adds in the switch.
const FIXED: [(&str, &str); 5] = [
    ("NCCL_ALGO", "Ring"),
    ("NCCL_PROTO", "Simple"),
    ("NCCL_MIN_NCHANNELS", "8"),
    ("NCCL_MAX_NCHANNELS", "8"),
    ("NCCL_NVLS_ENABLE", "0"),
];

/// Between two looks at the other ranks.
const PAUSE: Duration = Duration::from_micros(30);
const BYTE: c_int = 1;
const FLOAT: c_int = 7;
const SUM: c_int = 0;

type Comm = *mut c_void;

/// A name for a group of ranks, made by one and told to the others.
#[derive(Clone, Copy)]
#[repr(C)]
struct UniqueId([u8; 128]);

type AllReduce = unsafe extern "C" fn(
    *const c_void,
    *mut c_void,
    usize,
    c_int,
    c_int,
    Comm,
    *mut c_void,
) -> c_int;

type SendTo = unsafe extern "C" fn(*const c_void, usize, c_int, c_int, Comm, *mut c_void) -> c_int;
type ReceiveFrom =
    unsafe extern "C" fn(*mut c_void, usize, c_int, c_int, Comm, *mut c_void) -> c_int;

/// The functions, by NCCL's names.
struct Library {
    get_version: unsafe extern "C" fn(*mut c_int) -> c_int,
    get_unique_id: unsafe extern "C" fn(*mut UniqueId) -> c_int,
    init_rank: unsafe extern "C" fn(*mut Comm, c_int, UniqueId, c_int) -> c_int,
    all_reduce: AllReduce,
    send: SendTo,
    receive: ReceiveFrom,
    group_start: unsafe extern "C" fn() -> c_int,
    group_end: unsafe extern "C" fn() -> c_int,
    async_error: unsafe extern "C" fn(Comm, *mut c_int) -> c_int,
    abort: unsafe extern "C" fn(Comm) -> c_int,
    error_string: unsafe extern "C" fn(c_int) -> *const c_char,
}

unsafe extern "C" {
    fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

const RTLD_NOW: c_int = 2;

/// A function of an open library.
///
/// # Safety
/// `F` must be the pointer type of the function with this name, and the library must stay open.
unsafe fn find<F: Copy>(library: *mut c_void, symbol: &CStr) -> std::result::Result<F, String> {
    assert_eq!(
        size_of::<F>(),
        size_of::<*mut c_void>(),
        "a function's pointer"
    );
    // SAFETY: the library is open, the name ends with zero.
    let found = unsafe { dlsym(library, symbol.as_ptr()) };
    if found.is_null() {
        return Err(format!("NCCL has no `{}`", symbol.to_string_lossy()));
    }
    // SAFETY: the caller names the type; both are pointers of one size.
    Ok(unsafe { std::mem::transmute_copy(&found) })
}

impl Library {
    /// Loads it once for the process.
    fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<std::result::Result<Library, String>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| {
            fix();
            Self::open()
        });
        shared.as_ref().map_err(|what| {
            Error::device(
                what,
                format!(
                    "install NCCL for CUDA 13 (`pip download nvidia-nccl-cu13` has it under `nvidia/nccl/lib`) and \
                     put its folder on LD_LIBRARY_PATH or name the file in {VARIABLE}; or train on one GPU"
                ),
            )
        })
    }

    fn open() -> std::result::Result<Self, String> {
        let named = std::env::var(VARIABLE).ok().filter(|name| !name.is_empty());
        let name = named.unwrap_or_else(|| LIBRARY.to_owned());
        let path = CString::new(name.clone()).map_err(|e| e.to_string())?;
        // SAFETY: a name that ends with zero; NCCL's start-up code is trusted as the driver's is.
        let library = unsafe { dlopen(path.as_ptr(), RTLD_NOW) };
        if library.is_null() {
            return Err(format!(
                "there is no NCCL ({name}), which several GPUs need"
            ));
        }
        // SAFETY: the names are NCCL 2's, and the types are those of its header.
        unsafe {
            Ok(Self {
                get_version: find(library, c"ncclGetVersion")?,
                get_unique_id: find(library, c"ncclGetUniqueId")?,
                init_rank: find(library, c"ncclCommInitRank")?,
                all_reduce: find(library, c"ncclAllReduce")?,
                send: find(library, c"ncclSend")?,
                receive: find(library, c"ncclRecv")?,
                group_start: find(library, c"ncclGroupStart")?,
                group_end: find(library, c"ncclGroupEnd")?,
                async_error: find(library, c"ncclCommGetAsyncError")?,
                abort: find(library, c"ncclCommAbort")?,
                error_string: find(library, c"ncclGetErrorString")?,
            })
        }
    }

    fn check(&self, result: c_int, what: &str) -> Result<()> {
        if result == 0 {
            return Ok(());
        }
        // SAFETY: NCCL's own text, which lives as long as the library.
        let said = unsafe { CStr::from_ptr((self.error_string)(result)) };
        Err(Error::device(
            format!("{what}: NCCL says `{}`", said.to_string_lossy()),
            "set NCCL_DEBUG=WARN and run again to hear more; training goes on from its checkpoint",
        ))
    }

    fn version(&self) -> Result<c_int> {
        let mut version = 0;
        // SAFETY: the out-pointer is valid.
        let asked = unsafe { (self.get_version)(&raw mut version) };
        self.check(asked, "asking NCCL's version")?;
        Ok(version)
    }
}

/// Writes [`FIXED`] where nobody has written anything else.
fn fix() {
    for (name, value) in FIXED {
        if std::env::var_os(name).is_none() {
            // SAFETY: called once, before NCCL is loaded; this program reads its environment through the
            // standard library alone, which locks it.
            unsafe { std::env::set_var(name, value) };
        }
    }
}

/// What goes to another rank, and where what comes from it goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Swap {
    pub(super) rank: usize,
    pub(super) send: Region,
    pub(super) receive: Region,
}

/// This process among those that sum.
pub(super) struct Ring {
    library: &'static Library,
    comm: Comm,
    version: c_int,
}

// SAFETY: NCCL's handle may be used from any thread, one at a time; it has one owner.
unsafe impl Send for Ring {}

/// The card that a thread works on.
struct Context(sys::CUcontext);

// SAFETY: contexts may be used from any thread.
unsafe impl Send for Context {}

impl Context {
    fn current() -> Result<Self> {
        let mut context = ptr::null_mut();
        // SAFETY: the out-pointer is valid.
        let asked = unsafe { sys::cuCtxGetCurrent(&raw mut context) };
        check(asked, "asking for the card in use")?;
        Ok(Self(context))
    }

    fn enter(&self) -> Result<()> {
        // SAFETY: the context is the process's own and lives as long.
        check(unsafe { sys::cuCtxSetCurrent(self.0) }, "using the card")
    }
}

/// A pointer on its way between threads.
struct Sent(Comm);

// SAFETY: as `Ring`.
unsafe impl Send for Sent {}

impl Ring {
    /// Meets the other ranks on their cards; every rank calls this, from a thread that works on its own card.
    pub(super) fn join(ranks: &dyn Collective) -> Result<Self> {
        let library = Library::shared();
        // All know before one waits for another on a card.
        let own = library
            .as_ref()
            .map_or_else(ToString::to_string, |_| String::new());
        let lacks = ranks.gather(own.as_bytes())?;
        let library = library?;
        if let Some(rank) = lacks.iter().position(|said| !said.is_empty()) {
            let said = String::from_utf8_lossy(&lacks[rank]);
            return Err(Error::ranks(format!("rank {rank}: {said}"), ""));
        }
        let mut id = UniqueId([0; 128]);
        if ranks.rank() == 0 {
            // SAFETY: the out-pointer is valid.
            let made = unsafe { (library.get_unique_id)(&raw mut id) };
            library.check(made, "naming the group of ranks")?;
        }
        let told = ranks.broadcast(id.0.to_vec())?;
        id.0 = told
            .try_into()
            .map_err(|_| Error::ranks("rank 0 tells no name of 128 bytes", ""))?;
        let comm = meet(library, id, ranks)?;
        Ok(Self {
            library,
            comm,
            version: library.version()?,
        })
    }

    /// The version and all that decides the order of sums, for the record.
    pub(super) fn numerics(&self) -> String {
        let set = FIXED.map(|(name, _)| {
            let value = std::env::var(name).unwrap_or_default();
            format!("{}={value}", name.trim_start_matches("NCCL_"))
        });
        format!("NCCL {} {}", self.version, set.join(" "))
    }

    /// Sums f32 values over all ranks, in place, in the order of `stream`.
    pub(super) fn sum(&self, values: Region, stream: sys::CUstream) -> Result<()> {
        let at = values.at as *mut c_void;
        // SAFETY: the region is this device's and outlives the stream's work; a driver's stream is a runtime's.
        let asked = unsafe {
            (self.library.all_reduce)(
                at,
                at,
                values.bytes / 4,
                FLOAT,
                SUM,
                self.comm,
                stream.cast(),
            )
        };
        self.library.check(asked, "summing gradients")
    }

    /// Sends to other ranks and receives from them, all at once, in the order of `stream`. Both sides of a swap name
    /// the same sizes; those between two ranks meet in their order.
    pub(super) fn swap(&self, swaps: &[Swap], stream: sys::CUstream) -> Result<()> {
        // SAFETY: a group is opened and closed by one thread; it holds nothing.
        let mut asked = unsafe { (self.library.group_start)() };
        for swap in swaps {
            if asked == 0 {
                asked = self.queue(swap, stream);
            }
        }
        // SAFETY: as above.
        let closed = unsafe { (self.library.group_end)() };
        self.library.check(asked, "asking for an exchange")?;
        self.library.check(closed, "exchanging keys and values")
    }

    fn queue(&self, swap: &Swap, stream: sys::CUstream) -> c_int {
        let (rank, stream) = (swap.rank as c_int, stream.cast());
        let (send, receive) = (swap.send, swap.receive);
        // SAFETY: the regions are this device's and outlive the stream's work; a driver's stream is a runtime's.
        unsafe {
            let from = send.at as *const c_void;
            let asked = (self.library.send)(from, send.bytes, BYTE, rank, self.comm, stream);
            if asked != 0 {
                return asked;
            }
            let to = receive.at as *mut c_void;
            (self.library.receive)(to, receive.bytes, BYTE, rank, self.comm, stream)
        }
    }

    /// Waits for the work of `stream`; fails if another rank ends meanwhile. The card may then still wait for that
    /// rank, until [`Ring::give_up`].
    pub(super) fn wait(&self, stream: sys::CUstream, ranks: &dyn Collective) -> Result<()> {
        let begun = Instant::now();
        loop {
            // SAFETY: the stream is the device's.
            match unsafe { sys::cuStreamQuery(stream) } {
                sys::CUresult::CUDA_ERROR_NOT_READY => {}
                result => return check(result, "waiting for the card"),
            }
            let mut error = 0;
            // SAFETY: the communicator lives, the out-pointer is valid.
            let asked = unsafe { (self.library.async_error)(self.comm, &raw mut error) };
            still(begun, ranks)?;
            self.library.check(asked, "looking after a sum")?;
            self.library.check(error, "summing gradients")?;
            std::thread::sleep(PAUSE);
        }
    }

    /// Ends sums that wait for ranks that will not come.
    pub(super) fn give_up(&mut self) {
        let comm = std::mem::replace(&mut self.comm, ptr::null_mut());
        if !comm.is_null() {
            // SAFETY: the communicator is used no more.
            let _ended = unsafe { (self.library.abort)(comm) };
        }
    }
}

/// Fails if a rank is gone, or all have been waited for too long.
fn still(begun: Instant, ranks: &dyn Collective) -> Result<()> {
    if begun.elapsed() < ranks.patience() {
        return ranks.check();
    }
    Err(Error::ranks(
        format!(
            "the cards of {} ranks have not finished in {} s",
            ranks.world(),
            ranks.patience().as_secs_f64()
        ),
        "look at `nvidia-smi` on each host; if steps do take that long, give the ranks more time",
    ))
}

/// Opens the communicator beside a look at the other ranks: NCCL waits for them without a limit.
fn meet(library: &'static Library, id: UniqueId, ranks: &dyn Collective) -> Result<Comm> {
    let (rank, world) = (ranks.rank() as c_int, ranks.world() as c_int);
    let context = Context::current()?;
    let opening = std::thread::spawn(move || {
        context.enter()?;
        let mut comm = ptr::null_mut();
        // SAFETY: the out-pointer is valid; this thread works on the device's context.
        let opened = unsafe { (library.init_rank)(&raw mut comm, world, id, rank) };
        library.check(opened, "meeting the other ranks")?;
        Ok(Sent(comm))
    });
    let begun = Instant::now();
    while !opening.is_finished() {
        // The thread is left waiting: this process is about to end.
        still(begun, ranks)?;
        std::thread::sleep(Duration::from_millis(2));
    }
    let opened: Result<Sent> = opening.join().expect("it does not panic");
    Ok(opened?.0)
}

impl Drop for Ring {
    /// Nothing is under way then; and unlike NCCL's orderly end this one waits for nobody who may be gone.
    fn drop(&mut self) {
        self.give_up();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Needs the library, no card.
    #[test]
    fn the_library_is_bound_where_it_is_there() {
        let library = match Library::shared() {
            Ok(library) => library,
            Err(error) => {
                assert_eq!(error.code(), "qlora::device");
                assert!(error.mend().unwrap().contains(VARIABLE));
                return eprintln!("skipped: {error}");
            }
        };
        assert!(library.version().unwrap() > 20_000);
        let mut id = UniqueId([0; 128]);
        // SAFETY: the out-pointer is valid.
        let made = unsafe { (library.get_unique_id)(&raw mut id) };
        library.check(made, "naming a group").unwrap();
        assert!(id.0.iter().any(|byte| *byte != 0));
        for (name, _) in FIXED {
            assert!(std::env::var(name).is_ok(), "{name} is settled");
        }
        let error = library.check(5, "asking for nonsense").unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("asking for nonsense: NCCL says `")
        );
    }
}
