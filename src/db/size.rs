//! How many connections a worker may have, so that all workers of two generations fit into what the server allows.

use super::{Db, FromRow as _, Pool, Result, Sql, Unfit};

impl Db {
    /// Sizes the pool: as it is told, or as the server allows for so many workers.
    ///
    /// # Errors
    ///
    /// The server is away, or does not allow so many.
    pub(crate) async fn fit(&self, size: Option<usize>, workers: u32) -> Result<(), Unfit> {
        let Pool::Postgres(pool) = &self.0.pool else { return Ok(()) };
        let doing =
            |error| Unfit::Database { doing: "ask for the limit of connections".into(), error };
        let mut connection = self.connection().await.map_err(doing)?;
        let answer = connection.run(&USABLE, &[]).await;
        let mut answer = connection.end(answer).map_err(doing)?;
        let usable = answer.first(i64::from_row).map_err(doing)?.unwrap_or(0);
        let usable = usize::try_from(usable).unwrap_or(0);
        let workers = usize::try_from(workers).unwrap_or(usize::MAX);
        pool.connections.resize(fitting(size, workers, usable)?);
        self.show_pool();
        Ok(())
    }
}

/// The size of a pool: two generations run at once during a reload.
fn fitting(size: Option<usize>, workers: usize, usable: usize) -> Result<usize, Unfit> {
    let pools = workers.saturating_mul(GENERATIONS).max(1);
    let Some(size) = size else {
        return Ok((usable.saturating_sub(SPARE) / pools).clamp(1, MOST));
    };
    if size.saturating_mul(pools) > usable {
        return Err(Unfit::TooMany { workers, size, usable });
    }
    Ok(size)
}

const GENERATIONS: usize = 2;
/// Left for people who look after the database.
const SPARE: usize = 5;
const MOST: usize = 10;
static USABLE: Sql = Sql::select(
    "pg_settings",
    "SELECT CAST(sum(CASE name WHEN 'max_connections' THEN CAST(setting AS BIGINT) \
     ELSE -CAST(setting AS BIGINT) END) AS BIGINT) FROM pg_settings \
     WHERE name IN ('max_connections', 'superuser_reserved_connections', 'reserved_connections')",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_generations_fit_into_what_the_server_allows() {
        assert_eq!(fitting(None, 4, 97).unwrap(), 10);
        assert_eq!(fitting(None, 16, 97).unwrap(), 2);
        assert_eq!(fitting(None, 100, 97).unwrap(), 1);
        assert_eq!(fitting(Some(3), 16, 97).unwrap(), 3);
        assert_eq!(
            fitting(Some(5), 16, 97).unwrap_err().to_string(),
            "database pool: 16 workers x 5 connections x 2 generations = 160 exceed the 97 usable \
             connections; set DATABASE_POOL_SIZE to 3 or less, or raise max_connections"
        );
    }
}
