-- The tables of all surfaces. `@id` is a number that the database gives and never gives again; lines that begin with
-- `@postgresql` or `@sqlite` are for that system alone. Times are microseconds since 1970, money is cents.

CREATE TABLE conduit_users (
    id @id,
    email TEXT NOT NULL,
    email_key TEXT NOT NULL UNIQUE,
    username TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    bio TEXT,
    image TEXT,
    token_version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE conduit_follows (
    follower_id BIGINT NOT NULL REFERENCES conduit_users (id) ON DELETE CASCADE,
    followee_id BIGINT NOT NULL REFERENCES conduit_users (id) ON DELETE CASCADE,
    PRIMARY KEY (follower_id, followee_id),
    CHECK (follower_id <> followee_id)
);
CREATE INDEX conduit_follows_followee ON conduit_follows (followee_id);

CREATE TABLE conduit_articles (
    id @id,
    slug TEXT NOT NULL UNIQUE,
    title TEXT NOT NULL,
    description TEXT NOT NULL,
    body TEXT NOT NULL,
    tag_list TEXT NOT NULL,
    author_id BIGINT NOT NULL REFERENCES conduit_users (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX conduit_articles_author ON conduit_articles (author_id, id);

CREATE TABLE conduit_article_tags (
    tag TEXT NOT NULL,
    article_id BIGINT NOT NULL REFERENCES conduit_articles (id) ON DELETE CASCADE,
    PRIMARY KEY (tag, article_id)
);
CREATE INDEX conduit_article_tags_article ON conduit_article_tags (article_id);

CREATE TABLE conduit_favorites (
    user_id BIGINT NOT NULL REFERENCES conduit_users (id) ON DELETE CASCADE,
    article_id BIGINT NOT NULL REFERENCES conduit_articles (id) ON DELETE CASCADE,
    PRIMARY KEY (user_id, article_id)
);
CREATE INDEX conduit_favorites_article ON conduit_favorites (article_id);

CREATE TABLE conduit_comments (
    id @id,
    article_id BIGINT NOT NULL REFERENCES conduit_articles (id) ON DELETE CASCADE,
    author_id BIGINT NOT NULL REFERENCES conduit_users (id) ON DELETE CASCADE,
    body TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX conduit_comments_article ON conduit_comments (article_id, id);
CREATE INDEX conduit_comments_author ON conduit_comments (author_id);

CREATE TABLE blog_users (
    id @id,
    email TEXT NOT NULL,
    email_key TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    phone_number TEXT,
    token_version BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE blog_posts (
    id @id,
    user_id BIGINT NOT NULL REFERENCES blog_users (id) ON DELETE CASCADE,
    title TEXT NOT NULL,
    content TEXT NOT NULL,
    published BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX blog_posts_user ON blog_posts (user_id);

CREATE TABLE blog_votes (
    user_id BIGINT NOT NULL REFERENCES blog_users (id) ON DELETE CASCADE,
    post_id BIGINT NOT NULL REFERENCES blog_posts (id) ON DELETE CASCADE,
    PRIMARY KEY (user_id, post_id)
);
CREATE INDEX blog_votes_post ON blog_votes (post_id);

CREATE TABLE items_items (
    id @id,
    name TEXT NOT NULL,
    price_cents BIGINT NOT NULL CHECK (price_cents >= 0),
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE items_orders (
    id @id,
    item_id BIGINT REFERENCES items_items (id) ON DELETE SET NULL,
    quantity BIGINT NOT NULL,
    total_cents BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX items_orders_item ON items_orders (item_id);

CREATE TABLE shop_inventory (
    item TEXT NOT NULL PRIMARY KEY,
    price_cents BIGINT NOT NULL,
    quantity BIGINT NOT NULL CHECK (quantity >= 0)
);

CREATE TABLE shop_orders (
    id @id,
    item TEXT NOT NULL,
    quantity BIGINT NOT NULL,
    price_cents BIGINT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('PENDING', 'COMPLETED', 'FAILED')),
    claimed_until BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX shop_orders_pending ON shop_orders (created_at) WHERE status = 'PENDING';

CREATE TABLE shop_deductions (
    order_id BIGINT NOT NULL PRIMARY KEY,
    item TEXT NOT NULL,
    quantity BIGINT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('DEDUCTED', 'RELEASED')),
    remaining BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE app_idempotency (
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    request_hash TEXT NOT NULL,
    status BIGINT,
    body TEXT,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (scope, key)
);
CREATE INDEX app_idempotency_created ON app_idempotency (created_at);

CREATE TABLE app_auth_failures (
    key TEXT NOT NULL PRIMARY KEY,
    failures BIGINT NOT NULL,
    window_start BIGINT NOT NULL
);
CREATE INDEX app_auth_failures_window ON app_auth_failures (window_start);

CREATE TABLE app_secrets (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE simulate_cache (
    key TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL,
    expires_at BIGINT NOT NULL
);

-- Items 1 to 100; new ones begin at 1000, so that 101 to 999 stay unknown.
WITH RECURSIVE numbers (n) AS (
    SELECT CAST(1 AS BIGINT) UNION ALL SELECT n + 1 FROM numbers WHERE n < 100
)
INSERT INTO items_items (id, name, price_cents, created_at, updated_at)
SELECT n, 'Item ' || CAST(n AS TEXT), n * 100, 1767225600000000, 1767225600000000 FROM numbers;
@postgresql ALTER TABLE items_items ALTER COLUMN id RESTART WITH 1000;
@postgresql ALTER TABLE items_orders ALTER COLUMN id RESTART WITH 1000;
@sqlite UPDATE sqlite_sequence SET seq = 999 WHERE name = 'items_items';
@sqlite INSERT INTO sqlite_sequence (name, seq) VALUES ('items_orders', 999);

INSERT INTO shop_inventory (item, price_cents, quantity) VALUES
    ('smartphone', 69900, 1000000),
    ('laptop', 120000, 1000000),
    ('tablet', 39900, 1000000),
    ('headphones', 14900, 1000000),
    ('monitor', 24900, 1000000),
    ('vinyl', 2900, 25);
