-- The first schema. Sections follow the features in import order.
-- UIDs and keys are collate "C": prefix ranges can use their index and compare cheaply.
create extension if not exists pg_trgm;

-- jobs ---------------------------------------------------------------------------------------------------------------
create table jobs (
  id uuid primary key,
  kind text not null,
  payload jsonb not null,
  asker_id uuid not null,
  project_id uuid,
  state text not null default 'queued' check (state in ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
  priority integer not null default 0,
  attempt integer not null default 0,          -- counts starts; also the fencing token of the running attempt
  progress real not null default 0 check (progress between 0 and 1),
  message text not null default '',
  problem jsonb,
  cancel_requested boolean not null default false,
  created_at timestamptz not null default now(),
  started_at timestamptz,
  finished_at timestamptz
);
create index jobs_of_asker on jobs (asker_id, created_at desc, id desc);
create index jobs_open on jobs (kind) where state in ('queued', 'running');

-- events -------------------------------------------------------------------------------------------------------------
create table events (
  seq bigint generated always as identity primary key,
  type text not null,
  at timestamptz not null default now(),
  actor_id uuid not null,
  actor_name text not null,
  project_id uuid,
  object_kind text not null,
  object_id text not null,
  data jsonb not null default '{}'
);
create index events_of_project on events (project_id, seq);
create index events_of_object on events (object_kind, object_id, seq);

-- http ---------------------------------------------------------------------------------------------------------------
create table idempotency_keys (
  principal_id uuid not null,
  key text not null,
  route text not null,
  fingerprint bytea not null,
  status integer not null,
  headers jsonb not null default '{}',
  body bytea not null,
  created_at timestamptz not null default now(),
  primary key (principal_id, route, key)
);
create index idempotency_keys_by_age on idempotency_keys (created_at);

-- identity -----------------------------------------------------------------------------------------------------------
create table users (
  id uuid primary key,
  username text not null,
  email text,
  display_name text not null default '',
  password_hash text,
  state text not null default 'active' check (state in ('pending', 'active', 'suspended', 'deleted')),
  is_admin boolean not null default false,
  is_service boolean not null default false,
  created_at timestamptz not null default now(),
  version integer not null default 1
);
create unique index users_username on users (lower(username));
create table sessions (
  id uuid primary key,
  user_id uuid not null references users,
  client text not null default '',
  created_at timestamptz not null default now(),
  last_used_at timestamptz not null default now(),
  expires_at timestamptz not null,
  revoked_at timestamptz
);
create index sessions_of_user on sessions (user_id);
create table refresh_tokens (
  hash bytea primary key,
  session_id uuid not null references sessions on delete cascade,
  created_at timestamptz not null default now(),
  used_at timestamptz
);
create table api_keys (
  id uuid primary key,
  user_id uuid not null references users,
  name text not null,
  hash bytea not null unique,
  scopes text[] not null default '{}',
  project_id uuid,
  created_at timestamptz not null default now(),
  last_used_at timestamptz,
  expires_at timestamptz,
  revoked_at timestamptz
);
create table signing_keys (
  kid text primary key,
  private_jwk jsonb not null,
  created_at timestamptz not null default now(),
  retired_at timestamptz
);

-- projects -----------------------------------------------------------------------------------------------------------
create table projects (
  id uuid primary key,
  name text not null,
  description text not null default '',
  inbox_of uuid unique references users,       -- the personal inbox of this user, else null
  created_by uuid not null,
  created_at timestamptz not null default now(),
  version integer not null default 1
);
create table project_members (
  project_id uuid not null references projects on delete cascade,
  user_id uuid not null references users,
  role text not null,
  created_at timestamptz not null default now(),
  expires_at timestamptz,
  primary key (user_id, project_id)
);
create index project_members_of_project on project_members (project_id);

-- archive ------------------------------------------------------------------------------------------------------------
create table blobs (
  address text collate "C" primary key,        -- BLAKE3 of the content, hex (docs/decisions: stored blob format)
  size bigint not null,
  format text not null default 'plain',
  created_at timestamptz not null default now()
);
create table studies (
  id bigint generated always as identity primary key,
  study_instance_uid text collate "C" not null unique,
  patient_id text collate "C" not null default '',
  patient_name text not null default '',
  name_key text collate "C" not null default '', -- lower-cased name: prefix ranges stay leakproof under row-level security
  patient_birth_date date,
  patient_sex text not null default '',
  study_date date,
  study_time text not null default '',
  study_at timestamp not null,                 -- a study without a date lies on a fixed early day: keyset order is total
  study_description text not null default '',
  accession_number text collate "C" not null default '',
  modalities text[] not null default '{}',
  series_count integer not null default 0,
  instance_count integer not null default 0,
  bytes bigint not null default 0,
  attributes jsonb not null default '{}',      -- DICOM JSON of study-level attributes (PS3.18 F.2)
  search_nfd text generated always as (normalize(lower(patient_name || ' ' || patient_id || ' ' || study_description || ' ' || accession_number), NFD)) stored,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
create index studies_newest on studies (study_at desc, id desc);
create index studies_patient on studies (patient_id);
create index studies_name on studies (name_key);
create index studies_accession on studies (accession_number);
create index studies_modalities on studies using gin (modalities);
create index studies_search on studies using gin (search_nfd gin_trgm_ops);
create table series (
  id bigint generated always as identity primary key,
  study_id bigint not null references studies on delete cascade,
  series_instance_uid text collate "C" not null unique,
  modality text collate "C" not null default '',
  series_number integer,
  series_description text not null default '',
  body_part_examined text not null default '',
  instance_count integer not null default 0,
  bytes bigint not null default 0,
  attributes jsonb not null default '{}',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
create index series_of_study on series (study_id);
create table instances (
  id bigint generated always as identity primary key,
  study_id bigint not null references studies on delete cascade,
  series_id bigint not null references series on delete cascade,
  sop_instance_uid text collate "C" not null unique,
  sop_class_uid text collate "C" not null,
  transfer_syntax_uid text collate "C" not null,
  instance_number integer,
  image_rows integer,
  image_columns integer,
  number_of_frames integer not null default 0, -- 0: no pixel data
  blob_address text collate "C" not null references blobs,
  blob_size bigint not null,
  attributes jsonb not null default '{}',      -- DICOM JSON of the instance-level attributes that QIDO-RS answers
  created_at timestamptz not null default now()
);
create index instances_of_series on instances (series_id, instance_number, id);
create index instances_of_study on instances (study_id);
create index instances_of_blob on instances (blob_address);
create table instance_headers (
  instance_id bigint primary key references instances on delete cascade,
  header bytea not null,                       -- zstd of the file's bytes before the pixel data element
  frames bytea not null                        -- little-endian uint64 pairs (offset, length) in the blob, one for each frame
);
create table project_studies (
  project_id uuid not null references projects on delete cascade,
  study_id bigint not null references studies on delete cascade,
  added_by uuid not null,
  added_at timestamptz not null default now(),
  primary key (study_id, project_id)
);
create index project_studies_of_project on project_studies (project_id, study_id);

-- uploads ------------------------------------------------------------------------------------------------------------
create table uploads (
  id uuid primary key,
  owner_id uuid not null references users,
  project_id uuid not null references projects,
  filename text not null default '',
  relative_path text not null default '',
  length bigint,
  received bigint not null default 0,          -- durable offset: what HEAD reports
  sha256 text,                                 -- what the client said the whole file hashes to
  state text not null default 'receiving' check (state in ('receiving', 'verifying', 'ingesting', 'stored', 'failed')),
  problem jsonb,
  job_id uuid,
  study_instance_uids text[] not null default '{}',
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  finished_at timestamptz
);
create index uploads_of_owner on uploads (owner_id, created_at desc, id desc);
create table upload_files (
  upload_id uuid not null references uploads on delete cascade,
  ordinal integer not null,
  path text not null,
  state text not null check (state in ('stored', 'already', 'refused')),
  study_instance_uid text,
  series_instance_uid text,
  sop_instance_uid text,
  problem jsonb,
  primary key (upload_id, ordinal)
);

-- annotations --------------------------------------------------------------------------------------------------------
create table annotations (                     -- what stands now; annotation_versions holds all that ever stood
  id uuid primary key,
  project_id uuid not null references projects,
  study_id bigint,                             -- while the archive holds the study (see the triggers); null: the images live elsewhere
  study_instance_uid text collate "C" not null,
  series_instance_uid text collate "C",
  sop_instance_uid text collate "C",
  frame_number integer check (frame_number >= 1),
  tracking_uid text collate "C" not null,      -- in DICOM SR (112040, DCM): the same finding over exports and imports
  kind text collate "C" not null,
  geometry_type text collate "C" not null,
  geometry json not null,                      -- kept as text, which answers hand on; as it was drawn: {"type", "space", "points", "closed"?}
  mapped_geometry json,                        -- the same in the other space, where the frame's place is known
  label jsonb,                                 -- a text, or {"value", "scheme", "meaning"}
  label_code text collate "C" generated always as (coalesce(label ->> 'value', label #>> '{}')) stored,
  attributes jsonb not null default '{}',
  measurements json not null default '[]',     -- computed here, and reported by clients
  description text not null default '',
  state text collate "C" not null default 'draft' check (state in ('draft', 'submitted', 'approved', 'rejected')),
  created_by uuid not null references users,
  updated_by uuid not null references users,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deleted_at timestamptz,
  version integer not null default 1,
  search_nfd text generated always as (normalize(lower(description || ' ' || coalesce(label ->> 'meaning', '') || ' ' || coalesce(label ->> 'value', label #>> '{}', '')), NFD)) stored
);
create index annotations_of_project on annotations (project_id, id);
create index annotations_of_study on annotations (study_instance_uid, project_id, id);
create index annotations_of_series on annotations (series_instance_uid, project_id, id);
create index annotations_of_author on annotations (created_by, id);
create index annotations_search on annotations using gin (search_nfd gin_trgm_ops);
create table annotation_versions (             -- never updated, never deleted: 1, 2, 3 ... without a gap
  annotation_id uuid not null references annotations,
  version integer not null,
  action text not null check (action in ('create', 'import', 'edit', 'submit', 'approve', 'reject', 'reopen', 'delete', 'restore')),
  changed text[] not null,                     -- names of the members that differ from the version before
  content json not null,
  why text not null default '',
  created_by uuid not null references users,
  created_at timestamptz not null default now(),
  primary key (annotation_id, version)
);
create function refuse_annotation_history_change() returns trigger language plpgsql as $$
begin
  raise exception 'the history of annotations is append-only' using errcode = 'insufficient_privilege';
end $$;
create trigger append_only before update or delete on annotation_versions
  for each row execute function refuse_annotation_history_change();
-- Annotations may be older than their study's arrival, and outlive it. The lock makes one that is created at the same moment
-- wait for the study's row, or the study for it.
create function bind_annotations_to_study() returns trigger language plpgsql as $$
begin
  if tg_op = 'INSERT' then
    perform pg_advisory_xact_lock(hashtextextended(new.study_instance_uid, 0));
    update annotations set study_id = new.id where study_instance_uid = new.study_instance_uid;
  else
    update annotations set study_id = null where study_instance_uid = old.study_instance_uid;
  end if;
  return null;
end $$;
create trigger bind_annotations after insert or delete on studies for each row execute function bind_annotations_to_study();
-- The key of a stored study, seen or not: what hangs on a hidden study is told apart from what hangs on none.
create function stored_study(uid text) returns bigint language plpgsql as $$
declare
  actor text := current_setting('app.actor', true);
  found_id bigint;
begin
  perform set_config('app.actor', '00000000-0000-0000-0000-000000000000', true);
  select id into found_id from studies where study_instance_uid = uid;
  perform set_config('app.actor', actor, true);
  return found_id;
end $$;
create table annotation_settings (             -- of a project; no row: the defaults
  project_id uuid primary key references projects on delete cascade,
  review_own boolean not null default false,   -- may a reviewer approve what they drew themselves?
  updated_at timestamptz not null default now()
);
create table labels (                          -- a project's label set: with one, annotations take their label from it
  id uuid primary key,
  project_id uuid not null references projects on delete cascade,
  value text collate "C" not null,
  scheme text collate "C" not null,
  meaning text not null,
  name_en text not null,
  name_ko text not null,
  color text not null,                         -- #rrggbb
  attributes jsonb not null default '[]',      -- [{"name", "type", "choices"?, "required", "label_en", "label_ko"}]
  required text[] not null default '{}',       -- members of an annotation that must be filled in: description, geometry
  position integer not null default 0,
  retired_at timestamptz,                      -- kept for what carries it, not offered any more
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  version integer not null default 1,
  unique (project_id, scheme, value)
);
create table annotation_drafts (               -- autosaved, unfinished work: one's own alone
  user_id uuid not null references users,
  study_instance_uid text collate "C" not null,
  key text collate "C" not null,
  content bytea not null,
  saved_at timestamptz not null default now(),
  primary key (user_id, study_instance_uid, key)
);

-- segmentations ------------------------------------------------------------------------------------------------------
create table segmentations (
  id uuid primary key,
  project_id uuid not null references projects,
  study_instance_uid text collate "C" not null,
  series_instance_uid text collate "C" not null,
  frame_of_reference_uid text collate "C" not null default '',
  label text not null default '',
  state text not null default 'draft' check (state in ('proposal', 'draft', 'submitted', 'approved', 'rejected')),
  prediction_id uuid,
  created_by uuid not null references users,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  version integer not null default 1
);
create index segmentations_of_series on segmentations (series_instance_uid, project_id);
create index segmentations_of_study on segmentations (study_instance_uid, project_id);
create table segmentation_versions (
  segmentation_id uuid not null references segmentations,
  version integer not null,
  shape_kji integer[] not null,
  affine_lps double precision[] not null,      -- 16 numbers, row by row: voxel index (i, j, k, 1) to LPS mm
  sop_instance_uid text collate "C",           -- the DICOM SEG of this version in the archive
  why text not null default '',
  created_by uuid not null references users,
  created_at timestamptz not null default now(),
  primary key (segmentation_id, version)
);
create table segments (
  segmentation_id uuid not null,
  version integer not null,
  segment_number integer not null check (segment_number >= 1),
  label text not null,
  code jsonb not null,                         -- {"value", "scheme", "meaning"}
  color text not null,                         -- #rrggbb
  statistics jsonb not null,
  primary key (segmentation_id, version, segment_number),
  foreign key (segmentation_id, version) references segmentation_versions
);
create table bricks (
  address bytea primary key,                   -- BLAKE3 of the packed bits before compression
  data bytea not null                          -- zstd of packbits, 16 slices of one segment
);
create table segment_bricks (
  segmentation_id uuid not null,
  version integer not null,
  segment_number integer not null,
  brick_index integer not null,                -- slices 16 * brick_index .. 16 * brick_index + 15; bricks without a voxel have no row
  address bytea not null references bricks,
  primary key (segmentation_id, version, segment_number, brick_index),
  foreign key (segmentation_id, version, segment_number) references segments
);

-- inference ----------------------------------------------------------------------------------------------------------
create table predictions (
  id uuid primary key,
  model text not null,
  model_version text not null,
  project_id uuid not null references projects,
  series_instance_uid text collate "C" not null,
  parameters jsonb not null default '{}',
  input_digest bytea,
  state text not null default 'queued' check (state in ('queued', 'running', 'succeeded', 'failed', 'cancelled', 'refused')),
  job_id uuid,
  segmentation_id uuid references segmentations,
  problem jsonb,
  quality jsonb not null default '{}',
  asked_by uuid not null references users,
  created_at timestamptz not null default now(),
  finished_at timestamptz
);
create index predictions_of_series on predictions (series_instance_uid, project_id);

-- the second wall: who is not a member of a project that holds the study sees no row of it ----------------------------
-- `visibility` is the one statement of the rule; queries join it (first wall) and policies read it (second wall).
-- app.actor and app.project are set by each transaction. The nil UUID is the system itself (jobs and the store
-- operation, which decided rights before). app.project narrows a credential that is bound to one project.
create view visibility as
  select ps.study_id, ps.project_id
  from project_studies ps
  join project_members m using (project_id)
  where m.user_id = (select nullif(current_setting('app.actor', true), '')::uuid)
    and (m.expires_at is null or m.expires_at > now())
    and ((select nullif(current_setting('app.project', true), '')) is null
         or ps.project_id = (select nullif(current_setting('app.project', true), '')::uuid));
alter table studies enable row level security;
alter table studies force row level security;
alter table series enable row level security;
alter table series force row level security;
alter table instances enable row level security;
alter table instances force row level security;
create policy visible on studies using (
  (select current_setting('app.actor', true)) = '00000000-0000-0000-0000-000000000000'
  or exists (select from visibility v where v.study_id = studies.id));
create policy visible on series using (
  (select current_setting('app.actor', true)) = '00000000-0000-0000-0000-000000000000'
  or exists (select from visibility v where v.study_id = series.study_id));
create policy visible on instances using (
  (select current_setting('app.actor', true)) = '00000000-0000-0000-0000-000000000000'
  or exists (select from visibility v where v.study_id = instances.study_id));
