//! Passwords: argon2id, on blocking threads, a few at a time. Each takes 19 MiB and a good part of a core for a while.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use crate::error::{Error, Result};
use crate::secret::Secret;

/// The places where passwords are hashed, and those where one waits for such a place.
pub(super) struct Passwords {
    hashing: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// One for each place, once it was needed. An allocator would keep one for each thread that ever hashed.
    memories: Arc<Mutex<Vec<Memory>>>,
}

/// What a hash is computed in.
type Memory = Vec<Block>;

impl Passwords {
    pub(super) fn new(concurrency: NonZeroUsize) -> Self {
        let places = concurrency.get();
        Self {
            hashing: Arc::new(Semaphore::new(places)),
            waiting: Arc::new(Semaphore::new(places + MOST_WAITING)),
            memories: Arc::default(),
        }
    }

    /// The hash of a new password.
    pub(super) async fn hash(&self, password: Secret) -> Result<Secret> {
        self.run(move |memory| hash(&password, memory)).await?.ok_or(Error::Internal)
    }

    /// Whether the password is that of the hash. Without a hash it is not, and takes as long to say so.
    pub(super) async fn verify(&self, password: Secret, hash: Option<Secret>) -> Result<bool> {
        if password.expose().len() > LONGEST {
            return Ok(false);
        }
        let is_known = hash.is_some();
        let hash = hash.unwrap_or_else(|| Secret::new(DUMMY.to_owned()));
        let fits = self.run(move |memory| verify(&password, &hash, memory)).await?;
        Ok(fits == Some(true) && is_known)
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Memory) -> T + Send + 'static,
    ) -> Result<T> {
        let busy = |_: TryAcquireError| Error::Unavailable { retry_after: 1 };
        let _waits = Arc::clone(&self.waiting).try_acquire_owned().map_err(busy)?;
        let place: OwnedSemaphorePermit =
            Arc::clone(&self.hashing).acquire_owned().await.map_err(|_| Error::Internal)?;
        let memories = Arc::clone(&self.memories);
        Ok(saola::blocking(move || {
            let memories = || memories.lock().unwrap_or_else(PoisonError::into_inner);
            let mut memory = memories().pop().unwrap_or_default();
            let result = work(&mut memory);
            memories().push(memory);
            // Held by the thread until now: a client who leaves does not stop it.
            drop(place);
            result
        })
        .await)
    }
}

fn hash(password: &Secret, memory: &mut Memory) -> Option<Secret> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).ok()?;
    let params = Params::new(MEMORY_KIB, PASSES, 1, Some(BYTES)).ok()?;
    let hash = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(&params).ok()?,
        salt: Some(Salt::new(&salt).ok()?),
        hash: Some(output(password, &salt, params, memory)?),
    };
    Some(Secret::new(hash.to_string()))
}

/// `None` when the hash is none of ours.
fn verify(password: &Secret, hash: &Secret, memory: &mut Memory) -> Option<bool> {
    let hash = PasswordHash::new(hash.expose()).ok()?;
    let params = Params::try_from(&hash).ok()?;
    let output = output(password, hash.salt.as_ref()?, params, memory)?;
    // In constant time: that is how these compare.
    Some(hash.hash == Some(output))
}

fn output(password: &Secret, salt: &[u8], params: Params, memory: &mut Memory) -> Option<Output> {
    memory.resize(params.block_count(), Block::default());
    let mut bytes = [0; BYTES];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(
            password.expose().as_bytes(),
            salt,
            &mut bytes,
            memory.as_mut_slice(),
        )
        .ok()?;
    Output::new(&bytes).ok()
}

/// OWASP's recommendation for argon2id.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const BYTES: usize = 32;
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
        let (password, dummy) = (Secret::new("x".to_owned()), Secret::new(DUMMY.to_owned()));
        assert_eq!(verify(&password, &dummy, &mut Memory::new()), Some(false), "it is computed");
        let known = "$argon2id$v=19$m=19456,t=2,p=1$";
        assert!(DUMMY.starts_with(known), "with the same costs");
    }
}
