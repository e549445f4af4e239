//! Passwords: argon2id, on blocking threads, a few at a time. Each takes 19 MiB and a good part of a core for a while.

use std::num::NonZeroUsize;
use std::sync::Arc;

use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use crate::error::{Error, Result};
use crate::secret::Secret;

/// The places where passwords are hashed, and those where one waits for such a place.
pub(super) struct Passwords {
    hashing: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Passwords {
    pub(super) fn new(concurrency: NonZeroUsize) -> Self {
        let places = concurrency.get();
        Self {
            hashing: Arc::new(Semaphore::new(places)),
            waiting: Arc::new(Semaphore::new(places + MOST_WAITING)),
        }
    }

    /// The hash of a new password.
    pub(super) async fn hash(&self, password: Secret) -> Result<Secret> {
        self.run(move || {
            let mut salt = [0; 16];
            getrandom::fill(&mut salt).ok()?;
            let hash =
                argon2()?.hash_password_with_salt(password.expose().as_bytes(), &salt).ok()?;
            Some(Secret::new(hash.to_string()))
        })
        .await?
        .ok_or(Error::Internal)
    }

    /// Whether the password is that of the hash. Without a hash it is not, and takes as long to say so.
    pub(super) async fn verify(&self, password: Secret, hash: Option<Secret>) -> Result<bool> {
        if password.expose().len() > LONGEST {
            return Ok(false);
        }
        let is_known = hash.is_some();
        let hash = hash.unwrap_or_else(|| Secret::new(DUMMY.to_owned()));
        let fits = self.run(move || {
            argon2()?.verify_password(password.expose().as_bytes(), hash.expose()).ok()
        });
        Ok(fits.await?.is_some() && is_known)
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let busy = |_: TryAcquireError| Error::Unavailable { retry_after: 1 };
        let _waits = Arc::clone(&self.waiting).try_acquire_owned().map_err(busy)?;
        let place: OwnedSemaphorePermit =
            Arc::clone(&self.hashing).acquire_owned().await.map_err(|_| Error::Internal)?;
        Ok(saola::blocking(move || {
            // Held by the thread: a client who leaves does not stop it.
            let _place = place;
            work()
        })
        .await)
    }
}

fn argon2() -> Option<Argon2<'static>> {
    let params = Params::new(MEMORY_KIB, PASSES, 1, None).ok()?;
    Some(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// OWASP's recommendation for argon2id.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
/// No password is longer.
pub(super) const LONGEST: usize = 1_024;
/// Beyond these nobody waits.
const MOST_WAITING: usize = 64;
/// The hash of a password that nobody has.
const DUMMY: &str = "$argon2id$v=19$m=19456,t=2,p=1$c2FvbGEtcmVmZXJlbmNlIQ$j2WPpPbGqxRv0xP1q2iUqC4bJ0K3cN9eYk5vRwTzXhA";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_fits_its_own_hash_and_no_other() {
        let passwords = Passwords::new(NonZeroUsize::MIN);
        let secret = |text: &str| Secret::new(text.to_owned());
        let hash = passwords.hash(secret("correct horse")).await.unwrap();
        assert!(hash.expose().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(passwords.verify(secret("correct horse"), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify(secret("correct horsf"), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify(secret(&"x".repeat(1_025)), Some(hash)).await.unwrap());
    }

    #[test]
    fn the_hash_that_nobody_has_takes_as_long_as_any() {
        assert_eq!(
            argon2().unwrap().verify_password(b"x", DUMMY),
            Err(argon2::password_hash::Error::PasswordInvalid),
            "it is computed to its end"
        );
    }
}
