//! Exit codes, and how errors are reported.

use std::io;
use std::process::ExitCode;

use client::ClientError;

use crate::lock::LockError;
use crate::out::say;

/// The exit codes, as documented in `ctl --help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Ok,
    /// The command failed, or something is wrong with the cluster.
    Error,
    /// The command line or the manifest is wrong.
    Usage,
    /// The cluster did not converge in time.
    NotConverged,
    /// No agent could be reached.
    NoAgent,
    /// Another command or state is in the way.
    Conflict,
    /// Ended by ^C.
    Interrupted,
}

impl Exit {
    /// The number that the shell sees.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Error => 1,
            Self::Usage => 2,
            Self::NotConverged => 3,
            Self::NoAgent => 4,
            Self::Conflict => 5,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// An expected failure: its exit code, what is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// ^C: the person who pressed it needs no message.
    pub(crate) fn interrupted() -> Self {
        Self::new(Exit::Interrupted, "interrupted")
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }
}

/// The one place that turns an error into an exit code and a message.
pub(crate) fn explain(error: &anyhow::Error) -> Failure {
    for cause in error.chain() {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return failure.clone();
        }
        if let Some(error) = cause.downcast_ref::<ClientError>() {
            return of_client(error);
        }
        if let Some(LockError::Held { .. }) = cause.downcast_ref::<LockError>() {
            return Failure::new(Exit::Conflict, cause.to_string()).hint("try again when it is done");
        }
        if cause.downcast_ref::<manifest::Mistakes>().is_some() {
            return Failure::new(Exit::Usage, cause.to_string());
        }
        if let Some(io) = cause.downcast_ref::<io::Error>()
            && io.kind() == io::ErrorKind::BrokenPipe
        {
            return Failure::new(Exit::Ok, "the reader of the output went away");
        }
    }
    Failure::new(Exit::Error, format!("{error:#}"))
}

fn of_client(error: &ClientError) -> Failure {
    match error {
        ClientError::BadUrl { .. } => Failure::new(Exit::Usage, error.to_string())
            .hint("write it as the agent shows it at its start, like `http://127.0.0.1:10000`"),
        ClientError::Unreachable { .. } => Failure::new(Exit::NoAgent, error.to_string())
            .hint("`ctl ls` shows the clusters of this machine, and where an agent of each listens"),
        ClientError::Timeout { .. } => Failure::new(Exit::NoAgent, error.to_string())
            .hint("the agent may be paused or busy; `ctl ls` shows the clusters of this machine"),
        ClientError::Problem(problem) => {
            let exit = match problem.status {
                400 => Exit::Usage,
                409 | 412 => Exit::Conflict,
                // The agent answers, but the node that it forwards to does not.
                502 | 504 => Exit::NoAgent,
                _ => Exit::Error,
            };
            let failure = Failure::new(exit, problem.detail.clone());
            match &problem.hint {
                Some(hint) => failure.hint(hint.clone()),
                None => failure,
            }
        }
        ClientError::TooLong { .. } => Failure::new(Exit::Error, error.to_string()),
        ClientError::Unexpected { .. } => Failure::new(Exit::Error, error.to_string())
            .hint("is that the address of an agent, and of the same version as ctl?"),
    }
}

/// Reports the error on stderr and returns the exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let failure = explain(error);
    match failure.exit {
        Exit::Ok | Exit::Interrupted => {}
        // A manifest's mistakes are formatted like compiler errors and need no prefix.
        _ if error.downcast_ref::<manifest::Mistakes>().is_some() => say(&failure.message),
        Exit::Error | Exit::Usage | Exit::NotConverged | Exit::NoAgent | Exit::Conflict => {
            say(&format!("error: {}", failure.message));
        }
    }
    if let Some(hint) = &failure.hint {
        say(&format!("hint: {hint}"));
    }
    failure.exit.into()
}

#[cfg(test)]
mod tests {
    use types::{ErrorKind, Problem};

    use super::*;

    fn exit_of(error: impl Into<anyhow::Error>) -> Exit {
        explain(&error.into().context("while trying")).exit()
    }

    fn problem(kind: ErrorKind) -> ClientError {
        ClientError::Problem(Box::new(Problem::new(kind, "x", "it is so").hint("do that")))
    }

    #[test]
    fn each_error_has_the_documented_exit_code() {
        let unreachable = ClientError::Unreachable {
            url: "http://a".to_owned(),
            why: "connection refused".to_owned(),
            is_unsent: true,
        };
        for (error, exit) in [
            (unreachable, Exit::NoAgent),
            (problem(ErrorKind::Invalid), Exit::Usage),
            (problem(ErrorKind::NotFound), Exit::Error),
            (problem(ErrorKind::Conflict), Exit::Conflict),
            (problem(ErrorKind::Changed), Exit::Conflict),
            (problem(ErrorKind::Unavailable), Exit::Error),
            (problem(ErrorKind::BadGateway), Exit::NoAgent),
            (problem(ErrorKind::Timeout), Exit::NoAgent),
            (problem(ErrorKind::Internal), Exit::Error),
        ] {
            let text = error.to_string();
            assert_eq!(exit_of(error), exit, "{text}");
        }
        assert_eq!(exit_of(Failure::new(Exit::NotConverged, "late")), Exit::NotConverged);
        let held = LockError::Held { holder: "ctl up (pid 1)".to_owned() };
        assert_eq!(exit_of(held), Exit::Conflict);
        assert_eq!(exit_of(io::Error::from(io::ErrorKind::BrokenPipe)), Exit::Ok);
        assert_eq!(exit_of(io::Error::from(io::ErrorKind::NotFound)), Exit::Error);
    }

    #[test]
    fn a_problem_keeps_its_detail_and_its_hint() {
        let failure = explain(&anyhow::Error::new(problem(ErrorKind::Conflict)));
        assert_eq!(failure, Failure::new(Exit::Conflict, "it is so").hint("do that"));
    }
}
