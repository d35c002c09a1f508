/** A small picture drawn by the server, fetched with the session's cookie; what cannot be drawn keeps its dark square. */
import { useState } from 'react';
import classes from './picture.module.css';

export function Picture({ src, size = 44 }: { src: string; size?: number }) {
  const [failed, setFailed] = useState(false);
  return (
    <span className={classes.picture} style={{ width: size, height: size }}>
      {!failed && <img src={src} alt="" loading="lazy" draggable={false} onError={() => setFailed(true)} />}
    </span>
  );
}
