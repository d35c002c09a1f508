"""The service that most teams would write: FastAPI, pydantic, SQLAlchemy's async ORM, PostgreSQL, one process."""

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any

import asyncpg
from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict
from sqlalchemy import DateTime, func, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

engine = create_async_engine(
    "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(os.environ["BENCH_DATABASE_URL"]), pool_size=8
)
sessions = async_sessionmaker(engine, expire_on_commit=False)


class Table(DeclarativeBase):
    pass


class Annotation(Table):
    __tablename__ = "peer_annotations"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    project_id: Mapped[str]
    study_instance_uid: Mapped[str] = mapped_column(index=True)
    kind: Mapped[str]
    geometry: Mapped[dict[str, Any]] = mapped_column(JSONB)
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class NewAnnotation(BaseModel):
    project_id: str
    study_instance_uid: str
    kind: str
    geometry: dict[str, Any]


class AnnotationAnswer(NewAnnotation):
    model_config = ConfigDict(from_attributes=True)
    id: uuid.UUID
    version: int
    created_at: datetime


class Page(BaseModel):
    items: list[AnnotationAnswer]


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Table.metadata.create_all)
    yield


app = FastAPI(lifespan=lifespan)


async def opened() -> AsyncIterator[AsyncSession]:
    async with sessions() as session:
        yield session


Session = Annotated[AsyncSession, Depends(opened)]


@app.post("/api/v1/annotations", status_code=201, response_model=AnnotationAnswer)
async def create(new: NewAnnotation, session: Session) -> Annotation:
    row = Annotation(**new.model_dump())
    session.add(row)
    await session.commit()
    await session.refresh(row)
    return row


@app.get("/api/v1/annotations/{annotation_id}", response_model=AnnotationAnswer)
async def read(annotation_id: uuid.UUID, session: Session) -> Annotation:
    row = await session.get(Annotation, annotation_id)
    if row is None:
        raise HTTPException(404)
    return row


@app.get("/api/v1/annotations", response_model=Page)
async def listing(study_instance_uid: str, session: Session, limit: int = 50) -> dict[str, Any]:
    chosen = select(Annotation).where(Annotation.study_instance_uid == study_instance_uid).limit(limit)
    return {"items": list(await session.scalars(chosen.order_by(Annotation.created_at)))}
