//! One run of the code under test: its threads, of which one at a time goes on, from an answer to its next call.

pub(crate) mod call;

use std::any::Any;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe, Location};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use call::{Asked, Call, Reply, Site};

use crate::workers::Workers;
use crate::world::World;

/// The code under test, with what it returns told in words.
pub(crate) type Code = Arc<dyn Fn(Arc<Session>) -> Result<(), String> + Send + Sync>;

/// The threads of the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Threads {
    /// So many at most.
    pub(crate) count: u8,
    /// They share no memory, so that each is run by itself; else they are run together, in the order of their answers.
    pub(crate) apart: bool,
}

/// A thread that shares no memory with the others.
#[derive(Clone)]
pub(crate) struct Apart {
    /// Which function it is.
    address: usize,
    run: Code,
}

impl Apart {
    pub(crate) fn new(address: usize, run: Code) -> Self {
        Self { address, run }
    }

    /// It, as code.
    pub(crate) fn code(&self) -> Code {
        self.run.clone()
    }
}

impl std::fmt::Debug for Apart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Apart").finish_non_exhaustive()
    }
}

impl PartialEq for Apart {
    fn eq(&self, other: &Self) -> bool {
        self.address == other.address
    }
}

impl Eq for Apart {}

impl std::hash::Hash for Apart {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.address.hash(state);
    }
}

/// How long it may take to unwind.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// Calls that a thread may make before anybody asks for them.
const MOST_AHEAD: u32 = 64;

/// Signals that threads have between each other, those by which they begin included.
pub(crate) const MOST_SIGNALS: u8 = 8;
/// Mutexes.
pub(crate) const MOST_LOCKS: u8 = 8;

/// How a thread of the code came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// It returned.
    Done,
    /// It returned an error.
    Failed(String),
    /// It panicked: with what, and where.
    Panicked(String, String),
}

/// What a thread came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Asked(Asked),
    Ended(End),
    /// It has used what there is in a way that it cannot be used: what, and where.
    Mistake(String, String),
}

/// Unwinds a thread whose run is over.
struct Over;

/// Unwinds a thread that has made a mistake.
struct Mistake(String, String);

/// Unwinds a thread of the code that panics in another language: with what, and where.
pub(crate) struct CodePanic(pub(crate) String, pub(crate) String);

#[derive(Default)]
struct Board {
    seats: u8,
    /// The answers that are still to be given, in order, each to the thread whose turn it is then.
    script: VecDeque<(u8, Reply)>,
    /// The thread that was answered last and has not come to its next call.
    busy: Option<u8>,
    /// What threads came to, in the order of the answers.
    events: Vec<Event>,
    /// Answers that were given before the script had them: those of plain calls, which are always answered alike.
    ahead: u32,
    over: bool,
    locks: u8,
    signals: u8,
    /// Threads that have not come to their end.
    alive: u8,
}

/// One run.
pub(crate) struct Session {
    board: Mutex<Board>,
    /// By seat: there is an answer for it, or all is over. Each by itself: who is woken for nothing costs more than the call.
    turns: Vec<Condvar>,
    /// The answers are used up, or a thread has come to its end.
    waits: Condvar,
    pub(crate) world: Arc<World>,
    threads: Threads,
    /// How long code may go on without a call.
    patience: Duration,
    workers: Arc<Workers>,
}

thread_local! {
    /// The session and seat of a thread of the code.
    static SEAT: RefCell<Option<(Arc<Session>, u8)>> = const { RefCell::new(None) };
    /// What such a thread panicked with last, and where.
    static PANIC: RefCell<Option<(String, String)>> = const { RefCell::new(None) };
}

/// Panics of the code under test belong to a verdict, which tells them; others are printed as before.
fn keep_panics_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if SEAT.with_borrow(Option::is_none) {
                return before(info);
            }
            let at = |place: &Location<'_>| format!("{}:{}", place.file(), place.line());
            let place = info.location().map_or_else(String::new, at);
            PANIC.set(Some((message(info.payload()), place)));
        }));
    });
}

/// What a panic says.
fn message(payload: &dyn Any) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without words".to_owned()
    }
}

/// What a thread that unwinds has come to.
fn end_by(payload: Box<dyn Any + Send>) -> Event {
    let payload = match payload.downcast::<Mistake>() {
        Ok(mistake) => return Event::Mistake(mistake.0, mistake.1),
        Err(other) => other,
    };
    let payload = match payload.downcast::<CodePanic>() {
        Ok(panic) => return Event::Ended(End::Panicked(panic.0, panic.1)),
        Err(other) => other,
    };
    if payload.is::<Over>() {
        return Event::Ended(End::Done);
    }
    let (said, place) = PANIC.take().unwrap_or_default();
    let said = match said.is_empty() {
        true => message(&*payload),
        false => said,
    };
    Event::Ended(End::Panicked(said, place))
}

impl Session {
    /// A run that is given these answers.
    pub(crate) fn begin(
        world: Arc<World>,
        code: Code,
        first: u8,
        script: Vec<(u8, Reply)>,
        threads: Threads,
        patience: Duration,
        workers: Arc<Workers>,
    ) -> Arc<Self> {
        keep_panics_quiet();
        let session = Arc::new(Self {
            board: Mutex::new(Board {
                seats: 1,
                script: script.into(),
                ..Board::default()
            }),
            turns: (0..threads.count).map(|_| Condvar::new()).collect(),
            waits: Condvar::new(),
            world,
            threads,
            patience,
            workers,
        });
        let begun = session.clone();
        session.seat(first, Site::caller(), move || code(begun));
        session
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        // Nobody panics while he holds it.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the thread of a seat, which waits for its begin.
    fn seat(
        self: &Arc<Self>,
        seat: u8,
        place: Site,
        run: impl FnOnce() -> Result<(), String> + Send + 'static,
    ) {
        let session = self.clone();
        self.board().alive += 1;
        let body = move || {
            SEAT.set(Some((session.clone(), seat)));
            let ended = panic::catch_unwind(AssertUnwindSafe(|| {
                session.ask(seat, Call::Begin(seat), place);
                run()
            }));
            let event = match ended {
                Ok(Ok(())) => Event::Ended(End::Done),
                Ok(Err(error)) => Event::Ended(End::Failed(error)),
                Err(payload) => end_by(payload),
            };
            SEAT.set(None);
            let mut board = session.board();
            session.came_to(&mut board, seat, event);
            board.alive -= 1;
            session.waits.notify_all();
        };
        self.workers.run(Box::new(body));
    }

    /// A thread of the code makes a call, and waits for its answer.
    fn ask(&self, seat: u8, call: Call, place: Site) -> Reply {
        // What runs while a panic unwinds is not told any more.
        if thread::panicking() {
            return Reply::PLAIN;
        }
        let is_plain = call.is_plain();
        let mut board = self.board();
        let counts = board.busy == Some(seat);
        self.came_to(&mut board, seat, Event::Asked(Asked { call, place }));
        let is_alone = self.threads.count == 1 || self.threads.apart;
        // One thread need not wait for what it will be answered anyway.
        let goes_on = counts && is_plain && is_alone && board.script.is_empty();
        if goes_on && !board.over && board.ahead < MOST_AHEAD {
            board.ahead += 1;
            board.busy = Some(seat);
            return Reply::PLAIN;
        }
        loop {
            if board.over {
                drop(board);
                panic::resume_unwind(Box::new(Over));
            }
            let is_its_turn =
                board.busy.is_none() && board.script.front().is_some_and(|(next, _)| *next == seat);
            if is_its_turn && let Some((_, reply)) = board.script.pop_front() {
                board.busy = Some(seat);
                return reply;
            }
            let waited = self.turns[usize::from(seat)].wait(board);
            board = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A thread has come to its next call, or to its end. Before its first answer that is nobody's business.
    fn came_to(&self, board: &mut Board, seat: u8, event: Event) {
        if board.busy == Some(seat) {
            board.busy = None;
            board.events.push(event);
            // Whoever has the next answer goes on; where it is this thread, nobody else need know.
            match board.script.front() {
                Some((next, _)) if *next == seat => {}
                Some((next, _)) => self.turns[usize::from(*next)].notify_one(),
                None => self.waits.notify_all(),
            }
        }
    }

    /// The same, of the thread that runs.
    pub(crate) fn call(&self, call: Call, place: Site) -> Reply {
        let seat = self.this_seat(place);
        self.ask(seat, call, place)
    }

    /// The same, where something is dropped: while a run unwinds nothing is asked any more.
    pub(crate) fn call_in_drop(&self, call: Call, place: Site) {
        if !thread::panicking() && !self.board().over {
            self.call(call, place);
        }
    }

    fn this_seat(&self, place: Site) -> u8 {
        let seat = SEAT.with_borrow(|seat| {
            let (session, seat) = seat.as_ref()?;
            std::ptr::eq(&raw const **session, self).then_some(*seat)
        });
        match seat {
            Some(seat) => seat,
            None => panic!(
                "a call on the simulated KVM at {} from a thread that is none of this run's: start threads with `vm.spawn`, and keep no `Vm` beyond the run that it was given to",
                place
            ),
        }
    }

    /// Ends a thread of the code that uses what there is as it cannot be used.
    pub(crate) fn mistake(&self, what: String, place: Site) -> ! {
        panic::resume_unwind(Box::new(Mistake(what, place.to_string())))
    }

    /// A thread of the code starts another one; its number.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        place: Site,
        run: impl FnOnce() -> Result<(), String> + Send + 'static,
    ) -> u8 {
        if self.threads.apart {
            self.mistake(NOT_APART.to_owned(), place);
        }
        let seat = self.next_seat(TOO_MANY_THREADS, place);
        self.seat(seat, place, run);
        self.call(Call::Spawn(seat), place);
        seat
    }

    /// The same of a thread that shares no memory with the others: it is run elsewhere.
    pub(crate) fn spawn_apart(&self, place: Site, apart: Apart) -> u8 {
        if self.this_seat(place) > 0 {
            let what = "a thread that was started by `spawn_apart` starts another one: start all by the first";
            self.mistake(what.to_owned(), place);
        }
        let seat = self.next_seat(TOO_MANY_APART, place);
        self.call(Call::SpawnApart(seat, apart), place);
        seat
    }

    /// Whether threads share no memory, as far as is known.
    pub(crate) fn has_threads_apart(&self) -> bool {
        self.threads.count == 1 || self.threads.apart
    }

    /// The seat of one more thread.
    fn next_seat(&self, none: &str, place: Site) -> u8 {
        let mut board = self.board();
        if board.over {
            drop(board);
            panic::resume_unwind(Box::new(Over));
        }
        let seat = board.seats;
        if seat >= self.threads.count {
            drop(board);
            self.mistake(none.to_owned(), place);
        }
        board.seats += 1;
        seat
    }

    /// The number of a new mutex.
    pub(crate) fn new_lock(&self, place: Site) -> u8 {
        let mut board = self.board();
        let lock = board.locks;
        if lock == MOST_LOCKS {
            drop(board);
            self.mistake(format!("more than {MOST_LOCKS} mutexes"), place);
        }
        board.locks += 1;
        lock
    }

    /// The number of a new channel.
    pub(crate) fn new_signal(&self, place: Site) -> u8 {
        let mut board = self.board();
        let signal = board.signals;
        if signal + self.threads.count > MOST_SIGNALS {
            drop(board);
            self.mistake(
                "too many channels: threads and channels together are at most 8".to_owned(),
                place,
            );
        }
        board.signals += 1;
        signal
    }

    /// Gives a thread one more answer.
    pub(crate) fn answer(&self, seat: u8, reply: Reply) {
        let mut board = self.board();
        if board.ahead > 0 {
            board.ahead -= 1;
            return;
        }
        board.script.push_back((seat, reply));
        drop(board);
        self.turns[usize::from(seat)].notify_one();
    }

    /// What threads came to after the answers from number `from` on, once there are so many in all; fewer where one is silent.
    pub(crate) fn events(&self, from: usize, count: usize) -> Vec<Event> {
        let mut board = self.board();
        let mut begin = Instant::now();
        let mut before = board.events.len();
        while board.events.len() < count {
            if board.events.len() > before {
                (before, begin) = (board.events.len(), Instant::now());
            }
            let Some(left) = self.patience.checked_sub(begin.elapsed()) else {
                break;
            };
            let waited = self.waits.wait_timeout(board, left);
            board = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let count = count.min(board.events.len());
        board.events[from..count].to_vec()
    }

    /// Ends the run. A thread that makes no call is left to itself.
    pub(crate) fn end(&self) {
        let mut board = self.board();
        board.over = true;
        self.turns.iter().for_each(Condvar::notify_all);
        let begin = Instant::now();
        while board.alive > 0 {
            let Some(left) = LAST_PATIENCE.checked_sub(begin.elapsed()) else {
                break;
            };
            let waited = self.waits.wait_timeout(board, left);
            board = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// What is told where the code starts more threads that share no memory than there are seats for.
pub(crate) const TOO_MANY_APART: &str = "more threads apart than there is room for";
/// The same where not all of them share no memory.
pub(crate) const NOT_APART: &str = "a thread that shares memory beside one that does not";
/// What is told where the code starts more threads than there are seats for.
pub(crate) const TOO_MANY_THREADS: &str = "more threads than there is room for";
